//! A bar with ETA and img/s on a terminal, plain lines in a log.
