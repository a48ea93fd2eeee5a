//! `holdfast relay`: this process passes connections on, and is nothing else.

use std::time::Duration;

use holdfast::home::RelaySettings;
use holdfast::node;
use holdfast_network::{RelayConfig, RelayEvent, RelayServer};
use holdfast_protocol::id::LibraryId;
use serde::Serialize;

use super::arguments::RelayArguments;
use super::exit::Exit;
use super::failure::Failure;
use super::session::{Session, now};
use super::terminal::{Form, Terminal};
use super::up::{interrupted, wrong_address};
use super::words::{printable, time_of_day};

/// Where a relay listens unless it is told: a port that firewalls can be told of.
const LISTEN: [&str; 4] =
    ["/ip4/0.0.0.0/tcp/4001", "/ip4/0.0.0.0/udp/4001/quic-v1", "/ip6/::/tcp/4001", "/ip6/::/udp/4001/quic-v1"];
/// Addresses become known one by one; they are shown together.
const SETTLE: Duration = Duration::from_millis(300);

pub(super) fn run(session: &Session<'_>, arguments: RelayArguments) -> Result<Exit, Failure> {
    if session.home.has_library() {
        let message = format!("there is a library in {}", session.home.root().display());
        let next =
            format!("let its device be a relay with {}, or name an empty --home", session.command("up --serve-relay"));
        return Err(Failure::new(Exit::Usage, message, next));
    }
    session.home.create()?;
    let _lock = session.home.lock()?;
    let settings = merge(session.home.relay_settings()?, arguments)?;
    let libraries = libraries(&settings)?;
    session.home.remember_relay(&settings)?;
    let listen = if settings.listen.is_empty() { LISTEN.map(str::to_owned).to_vec() } else { settings.listen };
    let key = node::relay_key(&session.home)?;
    let config = RelayConfig { key, libraries, listen, announced: settings.announced };
    let system = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    system.block_on(serve(session.terminal, config))
}

/// What the relay is told now, on top of what it was told before.
fn merge(mut settings: RelaySettings, arguments: RelayArguments) -> Result<RelaySettings, Failure> {
    let all = arguments.listen.iter().map(|address| holdfast_network::check_listened(address));
    all.chain(arguments.announce.iter().map(|address| holdfast_network::check_dialled(address)))
        .collect::<Result<(), _>>()
        .map_err(|error| wrong_address(&error))?;
    let libraries = arguments.libraries.iter().map(ToString::to_string).collect();
    for (given, setting) in [
        (libraries, &mut settings.libraries),
        (arguments.listen, &mut settings.listen),
        (arguments.announce, &mut settings.announced),
    ] {
        if !given.is_empty() {
            *setting = given;
        }
    }
    Ok(settings)
}

fn libraries(settings: &RelaySettings) -> Result<Vec<LibraryId>, Failure> {
    let unknown = || {
        let next = "name it with --library ID; `holdfast status -v` on one of its devices shows the id";
        Failure::new(Exit::Usage, "which library is this relay for?", next)
    };
    let parsed: Result<Vec<LibraryId>, _> = settings.libraries.iter().map(|library| library.parse()).collect();
    parsed.ok().filter(|libraries| !libraries.is_empty()).ok_or_else(unknown)
}

async fn serve(terminal: &Terminal, config: RelayConfig) -> Result<Exit, Failure> {
    let mut server = RelayServer::start(config).map_err(|error| Failure::from_error(Exit::Failed, &error))?;
    let interrupted = interrupted();
    tokio::pin!(interrupted);
    let mut addresses = None;
    loop {
        tokio::select! {
            () = &mut interrupted => return Ok(Exit::Done),
            () = tokio::time::sleep(SETTLE), if addresses.is_some() => {
                if let Some(addresses) = addresses.take() {
                    show(terminal, &RelayEvent::Listening { addresses })?;
                }
            }
            event = server.next() => match event {
                RelayEvent::Listening { addresses: known } => addresses = Some(known),
                event => show(terminal, &event)?,
            },
        }
    }
}

/// An event as a JSON line.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum EventLine<'a> {
    Listening { addresses: &'a [String] },
    Admitted { device: String, name: &'a str },
    Left { device: String },
    Joined { from: String, to: String },
}

#[derive(Serialize)]
#[serde(tag = "type", rename = "relay")]
struct Line<'a> {
    #[serde(flatten)]
    event: EventLine<'a>,
}

fn show(terminal: &Terminal, event: &RelayEvent) -> Result<(), Failure> {
    match terminal.form() {
        Form::Human => {
            let time = terminal.paint().dim(&time_of_day(now(), terminal.zone()));
            terminal.answer(&format!("{time}  {}", sentence(event)))
        }
        Form::Json => terminal.answer_json(Line {
            event: match event {
                RelayEvent::Listening { addresses } => EventLine::Listening { addresses },
                RelayEvent::Admitted { device, name } => EventLine::Admitted { device: device.to_string(), name },
                RelayEvent::Left { device } => EventLine::Left { device: device.to_string() },
                RelayEvent::Joined { from, to } => EventLine::Joined { from: from.to_string(), to: to.to_string() },
            },
        }),
    }
}

fn sentence(event: &RelayEvent) -> String {
    match event {
        RelayEvent::Listening { addresses } => {
            let is_local = |address: &&String| address.starts_with("/ip4/127.") || address.starts_with("/ip6/::1/");
            let elsewhere: Vec<_> = addresses.iter().filter(|address| !is_local(address)).collect();
            let shown = if elsewhere.is_empty() { addresses.iter().collect() } else { elsewhere };
            let options: Vec<_> =
                shown.into_iter().map(|address| format!("    --relay {}", printable(address))).collect();
            format!(
                "reached here, if the machine's firewall lets it; give each device one of\n\n{}\n",
                options.join("\n")
            )
        }
        RelayEvent::Admitted { device, name } => format!("{} ({}) may listen here", printable(name), device.short()),
        RelayEvent::Left { device } => format!("{} does not listen here any more", device.short()),
        RelayEvent::Joined { from, to } => format!("{} is connected to {}", from.short(), to.short()),
    }
}

#[cfg(test)]
mod tests {
    use holdfast_protocol::id::DeviceId;

    use super::*;

    fn given(library: Option<u8>, listen: &[&str]) -> RelayArguments {
        RelayArguments {
            libraries: library.map(|byte| LibraryId::from_bytes([byte; 32])).into_iter().collect(),
            listen: listen.iter().map(|&address| address.to_owned()).collect(),
            announce: Vec::new(),
        }
    }

    #[test]
    fn what_is_not_said_again_stays() {
        let first = merge(RelaySettings::default(), given(Some(7), &["/ip4/0.0.0.0/tcp/4001"])).unwrap();
        let again = merge(first.clone(), given(None, &[])).unwrap();
        assert_eq!(again, first);
        assert_eq!(libraries(&again).unwrap(), [LibraryId::from_bytes([7; 32])]);
        assert_eq!(libraries(&RelaySettings::default()).unwrap_err().exit, Exit::Usage);
        assert_eq!(merge(first, given(None, &["nas"])).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn the_address_is_shown_as_the_option_that_uses_it() {
        let listening =
            |addresses: &[&str]| RelayEvent::Listening { addresses: addresses.iter().map(|&a| a.to_owned()).collect() };
        let text = sentence(&listening(&["/ip4/127.0.0.1/tcp/1/p2p/X", "/ip4/203.0.113.9/tcp/1/p2p/X"]));
        assert!(text.contains("    --relay /ip4/203.0.113.9/tcp/1/p2p/X\n") && !text.contains("127."), "{text}");
        assert!(sentence(&listening(&["/ip4/127.0.0.1/tcp/1/p2p/X"])).contains("--relay /ip4/127.0.0.1/tcp/1/p2p/X"));
        let device = DeviceId::from_bytes([1; 32]);
        assert_eq!(sentence(&RelayEvent::Admitted { device, name: "nas".into() }), "nas (01010101) may listen here");
    }
}
