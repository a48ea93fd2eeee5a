//! From files in folders to durable chunks.

mod event;

pub use event::{FileName, ImportEvent, ImportId, ImportProblem, ImportedPhoto, IngestProgress, ScanSummary};
