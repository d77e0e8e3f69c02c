//! Publishing on real engines.
