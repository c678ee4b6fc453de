//! What a session is and what may happen to it next. No I/O, no clock, no randomness.
