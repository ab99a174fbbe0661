//! What each path needs.
