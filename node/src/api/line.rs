//! The lines on the socket.

use serde::{Deserialize, Serialize};

use super::view::{Progress, Refusal, Response};
use super::{Event, SCHEMA};

/// The longest line that a client may send.
pub(super) const REQUEST_BYTES_MAX: usize = 64 << 10;
/// The longest line that a node sends: a full page of photos with long captions.
pub(super) const ANSWER_BYTES_MAX: usize = 16 << 20;

/// A line's content, with the version of the schema in front.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versioned<T> {
    /// The version of the schema.
    pub schema: u32,
    /// The line's own fields.
    #[serde(flatten)]
    pub body: T,
}

impl<T> Versioned<T> {
    /// `body` in this version's schema.
    pub const fn new(body: T) -> Self {
        Self { schema: SCHEMA, body }
    }
}

/// The version alone, read first: the rest of a line of another version may have any form.
#[derive(Debug, Deserialize)]
pub(super) struct VersionOnly {
    pub(super) schema: u32,
}

/// What a node sends: any number of [`Line::Progress`] or [`Line::Event`], then one of the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub(super) enum Line {
    /// How far a long request got.
    Progress(Progress),
    /// Something happened.
    Event(Event),
    /// The request was refused.
    Refused(Refusal),
    /// No further event was kept.
    End,
    /// The answer.
    #[serde(untagged)]
    Answer(Response),
}

/// A line, ended.
pub(super) fn encode<T: Serialize>(body: T) -> Result<Vec<u8>, serde_json::Error> {
    let mut line = serde_json::to_vec(&Versioned::new(body))?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use holdfast_protocol::id::PhotoId;
    use holdfast_protocol::time::WallTime;

    use super::*;
    use crate::api::view::{ExportOutcome, Problem, RefusalKind};
    use crate::api::{Happening, PhotoSelection, Request};

    fn round_trip(line: &Line, json: &str) {
        let encoded = String::from_utf8(encode(line).unwrap()).unwrap();
        assert_eq!(encoded.trim_end(), json);
        assert_eq!(serde_json::from_str::<Versioned<Line>>(&encoded).unwrap().body, *line);
    }

    #[test]
    fn lines_are_what_the_schema_says() {
        round_trip(&Line::End, r#"{"schema":1,"type":"end"}"#);
        round_trip(&Line::Answer(Response::Stopping), r#"{"schema":1,"type":"stopping"}"#);
        let progress = Progress { files: 1, files_total: 2, bytes: 3, bytes_total: 4 };
        round_trip(
            &Line::Progress(progress),
            r#"{"schema":1,"type":"progress","files":1,"files_total":2,"bytes":3,"bytes_total":4}"#,
        );
        let happening = Happening::Imported { photo: PhotoId::from_bytes([0xab; 32]), name: "a.jpg".into(), bytes: 9 };
        round_trip(
            &Line::Event(Event { number: 7, time_ms: WallTime(1000), happening }),
            &format!(
                r#"{{"schema":1,"type":"event","number":7,"time_ms":1000,"event":"imported","photo":"{}","name":"a.jpg","bytes":9}}"#,
                "ab".repeat(32)
            ),
        );
        let problem = Problem { what: "the disk is full".into(), next: Some("free some space".into()) };
        round_trip(
            &Line::Event(Event { number: 8, time_ms: WallTime(1), happening: Happening::Problem(problem) }),
            r#"{"schema":1,"type":"event","number":8,"time_ms":1,"event":"problem","what":"the disk is full","next":"free some space"}"#,
        );
        round_trip(
            &Line::Refused(Refusal::new(RefusalKind::NotFound, "no such photo", "list them")),
            r#"{"schema":1,"type":"refused","kind":"not-found","message":"no such photo","next":"list them"}"#,
        );
        let outcome =
            ExportOutcome { directory: "/out".into(), written: 2, unchanged: 1, bytes: 10, ..ExportOutcome::default() };
        round_trip(
            &Line::Answer(Response::Export(outcome)),
            r#"{"schema":1,"type":"export","directory":"/out","written":2,"unchanged":1,"bytes":10,"passed_over_by":null,"repaired":0,"undated":0,"missing":0,"problems":[]}"#,
        );
    }

    #[test]
    fn requests_may_leave_out_what_has_a_default() {
        let line = r#"{"schema":1,"request":"photos","limit":10}"#;
        let request = serde_json::from_str::<Versioned<Request>>(line).unwrap().body;
        assert_eq!(request, Request::Photos { selection: PhotoSelection::All, search: None, after: None, limit: 10 });
        let line = r#"{"schema":1,"request":"events"}"#;
        assert_eq!(serde_json::from_str::<Versioned<Request>>(line).unwrap().body, Request::Events { follow: false });
    }

    #[test]
    fn fields_of_a_later_schema_are_passed_over() {
        let line = r#"{"schema":1,"type":"progress","files":1,"files_total":2,"bytes":3,"bytes_total":4,"speed":5}"#;
        assert!(serde_json::from_str::<Versioned<Line>>(line).is_ok());
    }
}
