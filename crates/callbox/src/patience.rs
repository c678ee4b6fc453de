//! Waiting for what takes long, over a dispatcher that does not answer for a while: it is started
//! anew, or a load balancer has nobody to ask.

use std::time::{Duration, Instant};

use crate::api_client::ApiError;

/// For how long nobody may answer.
const LONGEST: Duration = Duration::from_secs(60);

/// How long somebody who looks again and again bears it that nobody answers.
#[derive(Debug, Default)]
pub struct Patience {
    /// Since when nobody does.
    silent_since: Option<Instant>,
}

impl Patience {
    /// What was answered at `now`; none when it is to be asked again, with what to tell meanwhile.
    ///
    /// # Errors
    /// What asking again does not help, and what has lasted for a minute.
    pub fn bear<T>(
        &mut self,
        answer: Result<T, ApiError>,
        now: Instant,
    ) -> Result<Result<T, String>, ApiError> {
        match answer {
            Ok(answer) => {
                self.silent_since = None;
                Ok(Ok(answer))
            }
            Err(error) if error.may_pass() => {
                let since = *self.silent_since.get_or_insert(now);
                match now.duration_since(since) < LONGEST {
                    true => Ok(Err(format!("{error}; asking again"))),
                    false => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn away() -> Result<u32, ApiError> {
        Err(ApiError::Timeout { doing: "ask" })
    }

    #[test]
    fn a_minute_without_an_answer_is_borne_and_each_answer_begins_it_anew() {
        let (mut patience, began) = (Patience::default(), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        for seconds in [0, 30, 59] {
            let told = patience.bear(away(), at(seconds)).unwrap().unwrap_err();
            assert!(told.contains("asking again"), "{told}");
        }
        assert_eq!(patience.bear(Ok(7), at(59)).unwrap(), Ok(7));
        assert!(patience.bear(away(), at(61)).unwrap().is_err());
        assert!(patience.bear(away(), at(121)).is_err(), "a minute later");
        let nonsense = ApiError::Nonsense { doing: "ask", found: "a page".into() };
        assert!(patience.bear::<u32>(Err(nonsense), at(122)).is_err(), "it helps nothing");
    }
}
