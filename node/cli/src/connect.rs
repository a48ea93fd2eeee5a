//! `holdfast connect`: calls a device now, and says how it is reached or why it is not.

use holdfast::api::view::{Connection, Peer};
use holdfast::api::{Request, Response};

use super::exit::Exit;
use super::failure::Failure;
use super::peers::{connection, failures};
use super::session::{Session, now, unexpected};
use super::words::printable;

pub(super) fn run(session: &Session<'_>, device: String) -> Result<Exit, Failure> {
    let response = session.ask(&Request::Connect { device })?;
    let Response::Connect(peer) = &response else { return Err(unexpected(&response)) };
    session.show(&response, peer.as_ref(), |peer| lines(peer, &connection(peer, now())))?;
    Ok(if peer.connection == Connection::Connected { Exit::Done } else { Exit::Failed })
}

fn lines(peer: &Peer, connection: &str) -> String {
    let mut lines = vec![format!("{} is {connection}.", printable(&peer.name))];
    if peer.connection != Connection::Connected {
        if peer.failures.is_empty() {
            lines.push("  It has not answered yet.".to_owned());
        }
        lines.extend(failures(peer).map(|failure| format!("  {failure}")));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::peers::tests::peer;
    use super::*;
    use holdfast::api::view::DialFailure;

    #[test]
    fn a_call_says_how_or_why_not() {
        let connected = peer("nas", None, Connection::Connected, 0);
        assert_eq!(lines(&connected, "connected, local TCP, 1 ms"), "nas is connected, local TCP, 1 ms.");
        let silent = peer("nas", None, Connection::Offline, 0);
        let offline = "offline for 3 days, called in 4 min";
        assert_eq!(lines(&silent, offline), format!("nas is {offline}.\n  It has not answered yet."));
        let failure = |address: Option<&str>, reason: &str| DialFailure {
            address: address.map(str::to_owned),
            reason: reason.to_owned(),
        };
        let failures = vec![failure(Some("/ip4/10.0.0.7/tcp/1"), "connection refused"), failure(None, "odd\u{7}")];
        assert_eq!(
            lines(&Peer { failures, ..silent }, offline),
            format!("nas is {offline}.\n  /ip4/10.0.0.7/tcp/1: connection refused\n  odd\\x07")
        );
    }
}
