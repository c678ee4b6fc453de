//! Rows that this version cannot read: told once each, counted, and passed over, so that one of
//! them does not stand in the way of all others.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use super::{StoreError, Versioned};
use crate::metrics;

/// How many are remembered, so that they are told once.
const REMEMBERED: usize = 10_000;

/// The unreadable sessions that were met.
#[derive(Clone, Debug, Default)]
pub(super) struct Unreadable(Arc<Mutex<HashSet<String>>>);

impl Unreadable {
    /// Notes the failure, if it is that of a row.
    pub(super) fn note(&self, error: &StoreError) {
        let StoreError::BadRow { id, detail } = error else { return };
        let mut met = self.0.lock().expect("no panic while held");
        if met.len() < REMEMBERED && met.insert(id.clone()) {
            metrics::unreadable(met.len());
            tracing::error!(session.id = %id, detail, "a session cannot be read; it is passed over, and what it has is left alone");
        }
    }

    /// The session, or none when it has to be passed over.
    pub(super) fn pass_over(
        &self,
        read: Result<Versioned, StoreError>,
    ) -> Result<Option<Versioned>, StoreError> {
        match read {
            Ok(row) => Ok(Some(row)),
            Err(error @ StoreError::BadRow { .. }) => {
                self.note(&error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
