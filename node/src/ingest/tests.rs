//! The whole of ingest on a real store.
