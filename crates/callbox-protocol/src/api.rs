//! The public HTTP API under `/v1`, and the start shapes of Pipecat's runner and Pipecat Cloud.
