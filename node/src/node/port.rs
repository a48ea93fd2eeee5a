//! Where a node listens. Unless it is told addresses, at a port that the system chose at its first start and that it keeps:
//! others remember it, and tickets name it.

use holdfast_network::Required;

use super::NodeError;
use crate::api::view::Problem;
use crate::home::{Home, Settings};

/// Where a node listens, and what it may do without.
pub(super) struct Listening {
    pub(super) addresses: Vec<String>,
    pub(super) required: Required,
    /// The port to remember once the node listens there.
    port: Option<u16>,
    /// What a person should know.
    pub(super) problem: Option<Problem>,
}

impl Listening {
    /// Where `settings` say; else at the port that `home` remembers; else at a free one.
    pub(super) fn choose(home: &Home, settings: &Settings) -> Result<Self, NodeError> {
        if !settings.listen.is_empty() {
            let addresses = settings.listen.clone();
            return Ok(Self { addresses, required: Required::Every, port: None, problem: None });
        }
        let remembered = home.port()?;
        if let Some(port) = remembered.filter(|port| holdfast_network::is_port_free(*port)) {
            return Ok(Self { addresses: everywhere(port), required: Required::One, port: None, problem: None });
        }
        let port =
            holdfast_network::free_port().map_err(|error| NodeError::System { what: "a port to listen on", error })?;
        Ok(Self {
            addresses: everywhere(port),
            required: Required::One,
            port: remembered.is_none().then_some(port),
            problem: remembered.map(|taken| in_the_way(taken, port)),
        })
    }

    /// Remembers a port that is new, now that the node listens there.
    pub(super) fn keep(&self, home: &Home) -> Result<(), NodeError> {
        Ok(self.port.map_or(Ok(()), |port| home.remember_port(port))?)
    }
}

/// TCP and QUIC on every address of the machine.
fn everywhere(port: u16) -> Vec<String> {
    let ips = ["/ip4/0.0.0.0", "/ip6/::"];
    ips.into_iter().flat_map(|ip| [format!("{ip}/tcp/{port}"), format!("{ip}/udp/{port}/quic-v1")]).collect()
}

/// The port stays this node's: the program that has it now may be gone at the next start.
fn in_the_way(taken: u16, port: u16) -> Problem {
    Problem {
        what: format!(
            "another program, or another node, listens on port {taken}, by which other devices know this one: it \
             listens on {port} until it is started again"
        ),
        next: Some(format!("see with `ss -tulpn` which has port {taken}, stop that, and start this node again")),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn port_of(listening: &Listening) -> u16 {
        let (_, port) = listening.addresses[0].rsplit_once('/').unwrap();
        assert!(listening.addresses.iter().all(|address| address.contains(&format!("/{port}"))));
        port.parse().unwrap()
    }

    #[test]
    fn the_first_port_is_kept_also_while_another_has_it() {
        let directory = tempfile::tempdir().unwrap();
        let (home, settings) = (Home::at(directory.path()), Settings::default());
        let choose = || Listening::choose(&home, &settings).unwrap();
        let first = choose();
        assert_eq!((home.port().unwrap(), first.problem.is_some()), (None, false), "nothing listens there yet");
        first.keep(&home).unwrap();
        assert_eq!(port_of(&choose()), port_of(&first));

        let other = TcpListener::bind(("127.0.0.1", port_of(&first))).unwrap();
        let second = choose();
        second.keep(&home).unwrap();
        assert_ne!(port_of(&second), port_of(&first));
        assert!(second.problem.is_some_and(|problem| problem.what.contains(&port_of(&first).to_string())));
        drop(other);
        assert_eq!(port_of(&choose()), port_of(&first));
    }

    #[test]
    fn what_a_person_says_counts_and_is_no_port_of_the_node() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::at(directory.path());
        let settings = Settings { listen: vec!["/ip4/127.0.0.1/tcp/0".to_owned()], ..Settings::default() };
        let listening = Listening::choose(&home, &settings).unwrap();
        listening.keep(&home).unwrap();
        assert_eq!((listening.addresses, listening.required), (settings.listen, Required::Every));
        assert_eq!(home.port().unwrap(), None);
    }
}
