//! `holdfast up` and `holdfast join`: this process becomes the node.

use std::io::Read as _;
use std::path::PathBuf;

use holdfast::api::EventLog;
use holdfast::api::server::Server;
use holdfast::home::{Discovery, HomeLock, Originals, PortMapping, Relaying, Settings};
use holdfast::node::{self, Node, NodeConfig};
use holdfast_media::WorkerCommand;
use holdfast_network::StartError;
use holdfast_protocol::pairing::Ticket;

use super::arguments::NodeArguments;
use super::exit::Exit;
use super::failure::Failure;
use super::foreground;
use super::session::Session;
use super::words;

/// The longest name of a device or place, in characters.
const NAME_LENGTH_MAX: usize = 64;

/// How the node begins.
#[derive(Debug)]
pub(super) enum Opening {
    /// With a new library.
    Create,
    /// With the library that is here.
    Continue,
    /// With the library of another device.
    Join(Box<Ticket>),
}

pub(super) fn up(session: &Session<'_>, arguments: NodeArguments) -> Result<Exit, Failure> {
    let opening = match (session.home.has_library(), arguments.folders.is_empty()) {
        (true, _) => Opening::Continue,
        (false, false) => Opening::Create,
        // Without a folder a new library would be empty: more likely the home is the wrong one.
        (false, true) => return Err(session.no_library()),
    };
    start(session, arguments, opening)
}

pub(super) fn join(session: &Session<'_>, ticket: Option<String>, arguments: NodeArguments) -> Result<Exit, Failure> {
    let ticket = read_ticket(ticket)?.parse().map_err(|error| Failure::from_error(Exit::Usage, &error))?;
    start(session, arguments, Opening::Join(Box::new(ticket)))
}

/// The ticket from the command line, from standard input, or from the file that `HOLDFAST_TICKET_FILE` names.
fn read_ticket(argument: Option<String>) -> Result<String, Failure> {
    let unreadable = |from: &str, error: std::io::Error| {
        Failure::new(Exit::Failed, format!("cannot read the ticket from {from}: {error}"), "give it as an argument")
    };
    match (argument.as_deref(), std::env::var_os("HOLDFAST_TICKET_FILE")) {
        (Some("-"), _) => {
            let mut text = String::new();
            std::io::stdin()
                .take(1 << 16)
                .read_to_string(&mut text)
                .map_err(|error| unreadable("standard input", error))?;
            Ok(text)
        }
        (Some(ticket), _) => Ok(ticket.to_owned()),
        (None, Some(path)) => std::fs::read_to_string(&path)
            .map_err(|error| unreadable(&PathBuf::from(&path).display().to_string(), error)),
        (None, None) => Err(Failure::new(
            Exit::Usage,
            "which library? A ticket is missing",
            "run `holdfast invite` on a device of the library and give its ticket here",
        )),
    }
}

fn start(session: &Session<'_>, arguments: NodeArguments, opening: Opening) -> Result<Exit, Failure> {
    session.home.create()?;
    let lock = session.home.lock()?;
    if matches!(opening, Opening::Join(_)) && session.home.has_library() {
        return Err(Failure::new(
            Exit::Failed,
            format!("there is a library in {} already", session.home.root().display()),
            format!("continue with {}, or join from another directory with --home DIR", session.command("up")),
        ));
    }
    let settings = merge(session.home.settings()?, arguments)?;
    // Before a library is founded or joined, and before the address is remembered for later starts.
    settings
        .listen
        .iter()
        .try_for_each(|address| holdfast_network::check_free(address))
        .map_err(|error| Failure::from_error(Exit::Failed, &error))?;
    run(session, settings, opening, lock)
}

type AddressCheck = fn(&str) -> Result<(), StartError>;

/// What the node is told now, on top of what it was told before.
fn merge(mut settings: Settings, arguments: NodeArguments) -> Result<Settings, Failure> {
    for folder in arguments.folders {
        settings.watch(watchable(folder)?);
    }
    for (what, value, setting) in
        [("place", arguments.place, &mut settings.place), ("name", arguments.name, &mut settings.name)]
    {
        if let Some(value) = value {
            *setting = Some(label(what, &value)?);
        }
    }
    // A wrong address that is remembered would be in the way of every later start.
    let checks: [AddressCheck; 4] = [
        holdfast_network::check_listened,
        holdfast_network::check_dialled,
        holdfast_network::check_relay,
        holdfast_network::check_dialled,
    ];
    let given = [arguments.listen, arguments.peers, arguments.relays, arguments.announce];
    let remembered = [&mut settings.listen, &mut settings.peers, &mut settings.relays, &mut settings.announced];
    for ((given, setting), check) in given.into_iter().zip(remembered).zip(checks) {
        if !given.is_empty() {
            given.iter().try_for_each(|address| check(address)).map_err(|error| wrong_address(&error))?;
            *setting = given;
        }
    }
    if arguments.copy {
        settings.originals = Originals::Copied;
    }
    if arguments.no_mdns {
        settings.discovery = Discovery::Off;
    }
    if arguments.no_upnp {
        settings.port_mapping = PortMapping::Off;
    }
    if arguments.serve_relay {
        settings.relaying = Relaying::Members;
    }
    Ok(settings)
}

fn watchable(folder: PathBuf) -> Result<PathBuf, Failure> {
    let refused = |why: String| {
        let message = format!("cannot watch {}: {why}", folder.display());
        Failure::new(Exit::Usage, message, "name a folder that exists and that this user can read")
    };
    let absolute = std::fs::canonicalize(&folder).map_err(|error| refused(error.to_string()))?;
    // Reading it shows now what would otherwise come up as a problem later.
    std::fs::read_dir(&absolute).map_err(|error| refused(error.to_string()))?;
    Ok(absolute)
}

fn label(what: &str, value: &str) -> Result<String, Failure> {
    let value = value.trim();
    if value.is_empty() || value.chars().count() > NAME_LENGTH_MAX || value.chars().any(char::is_control) {
        let message = format!("`{value}` is no {what}");
        return Err(Failure::new(Exit::Usage, message, format!("use 1 to {NAME_LENGTH_MAX} printable characters")));
    }
    Ok(value.to_owned())
}

pub(super) fn wrong_address(error: &StartError) -> Failure {
    match error {
        StartError::Address { address, detail } => {
            let message = format!("`{address}` cannot be used: {detail}");
            Failure::new(
                Exit::Usage,
                message,
                "write addresses like /ip4/192.168.1.7/tcp/4001, relays with /p2p/ID behind",
            )
        }
        error => Failure::from_error(Exit::Usage, error),
    }
}

/// Runs the node until it is stopped.
fn run(session: &Session<'_>, settings: Settings, opening: Opening, lock: HomeLock) -> Result<Exit, Failure> {
    let events = EventLog::new();
    let system = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    foreground::watch(session.terminal, &events, || {
        system.block_on(async {
            prepare(session, &settings, opening).await?;
            serve(session, settings, lock, events.clone()).await
        })
    })
}

/// Makes the home hold a library.
async fn prepare(session: &Session<'_>, settings: &Settings, opening: Opening) -> Result<(), Failure> {
    let name = settings.name.clone().unwrap_or_else(device_name);
    match opening {
        Opening::Continue => Ok(()),
        Opening::Create => {
            let founded = node::found(&name)?;
            foreground::phrase(session.terminal, &founded.phrase().words().collect::<Vec<_>>())?;
            Ok(founded.keep(&session.home)?)
        }
        Opening::Join(ticket) => {
            session.terminal.note("Asking the device that made the ticket…");
            node::join(&session.home, &ticket, &name, settings).await?;
            session.terminal.note(&format!("Joined as `{}`.", words::printable(&name)));
            Ok(())
        }
    }
}

/// Runs the node and its local socket until one of them ends, or the person does.
async fn serve(session: &Session<'_>, settings: Settings, lock: HomeLock, events: EventLog) -> Result<Exit, Failure> {
    let worker = WorkerCommand::this_program()?;
    let home = session.home.clone();
    let config = NodeConfig { home, lock, settings, worker: Some(worker), events };
    let node = Node::start(config).await?;
    let socket = session.home.prepare_socket()?;
    let server = Server::bind(&socket)?;
    let serving = tokio::spawn(server.run(node.handle().clone()));
    let stop = node.stopper();
    let stopping = tokio::spawn(async move {
        interrupted().await;
        stop.stop();
    });
    let outcome = node.wait().await;
    stopping.abort();
    serving.abort();
    // The server removes its socket when it is dropped.
    let _ = serving.await;
    outcome?;
    Ok(Exit::Done)
}

/// Ctrl-C, or what a service manager sends.
pub(super) async fn interrupted() {
    let terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
    let Ok(mut terminated) = terminated else {
        let _ = tokio::signal::ctrl_c().await;
        return;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
}

/// What a device is called unless it is told: its host name.
fn device_name() -> String {
    let system = rustix::system::uname();
    system.nodename().to_str().ok().filter(|name| !name.is_empty()).unwrap_or("this device").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paint::Paint;

    fn given(place: Option<&str>, peers: &[&str]) -> NodeArguments {
        NodeArguments {
            place: place.map(str::to_owned),
            peers: peers.iter().map(|&peer| peer.to_owned()).collect(),
            ..NodeArguments::default()
        }
    }

    #[test]
    fn what_is_not_said_again_stays() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = given(Some(" home "), &["/ip4/127.0.0.1/tcp/1"]);
        first.folders = vec![folder.path().to_owned(), folder.path().join(".")];
        (first.copy, first.no_mdns, first.no_upnp, first.serve_relay) = (true, true, true, true);
        first.announce = vec!["/dns4/home.example/tcp/4001".to_owned()];
        let settings = merge(Settings::default(), first).unwrap();
        assert_eq!(settings.folders, [folder.path().canonicalize().unwrap()]);
        assert_eq!(settings.place.as_deref(), Some("home"));
        assert_eq!((settings.originals, settings.discovery), (Originals::Copied, Discovery::Off));
        assert_eq!((settings.port_mapping, settings.relaying), (PortMapping::Off, Relaying::Members));
        assert_eq!(settings.announced, ["/dns4/home.example/tcp/4001"]);
        assert_eq!(merge(settings.clone(), NodeArguments::default()), Ok(settings));
    }

    #[test]
    fn addresses_are_looked_at_before_they_are_remembered() {
        let relay = "/ip4/192.0.2.1/tcp/4001/p2p/12D3KooWH5MaK7WrLhQr2wsg9eVzje9qkTxxVeaFUd7Qx6ZHg3Ud";
        let with = |listen: &str, relay: &str| {
            let [listen, relays] = [listen, relay].map(|given| vec![given.to_owned()]);
            merge(Settings::default(), NodeArguments { listen, relays, ..NodeArguments::default() })
        };
        let good = with("/ip4/0.0.0.0/tcp/4001", relay).unwrap();
        assert_eq!((good.listen.len(), good.relays.len()), (1, 1));
        let relay_id = &relay["/ip4/192.0.2.1/tcp/4001".len()..];
        for (listen, wrong_relay, said) in [
            ("/ip4/0.0.0.0/tcp/4001", "/ip4/192.0.2.1/tcp/4001", "/p2p/"),
            ("/ip4/0.0.0.0/tcp/4001", "/ip4/192.0.2.1/tcp/4001/p2p/12D3nonsense", "12D3nonsense"),
            ("/ip4/0.0.0.0/tcp/4001", relay_id, "port"),
            ("/ip4/0.0.0.0/4001", relay, "/ip4/0.0.0.0/4001"),
            ("/ip4/0.0.0.0/udp/4001", relay, "quic-v1"),
            ("/ip4/0.0.0.0/tcp/40010000", relay, "40010000"),
        ] {
            let failure = with(listen, wrong_relay).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.lines(Paint::Plain).contains(said), "{}", failure.lines(Paint::Plain));
        }
    }

    #[test]
    fn what_makes_no_sense_is_a_usage_error() {
        let missing = NodeArguments { folders: vec!["/no/such/folder".into()], ..NodeArguments::default() };
        for arguments in [missing, given(Some(" "), &[]), given(Some(&"x".repeat(65)), &[]), given(None, &["nas:4001"])]
        {
            assert_eq!(merge(Settings::default(), arguments).unwrap_err().exit, Exit::Usage);
        }
    }
}
