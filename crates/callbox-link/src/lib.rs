//! Speaking the agent protocol over any byte stream: handshake, HTTP/2 client, typed calls.
