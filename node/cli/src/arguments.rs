//! The command line's words.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueHint};
use clap_complete::Shell;
use holdfast_protocol::id::LibraryId;

const EXIT_CODES: &str = "\
Exit codes:
   0  done
   1  failed
   2  the command line makes no sense
   3  partly done
   4  status, photos --unsafe: some photos are below their target
  10  no library here
  11  the node is not running
  12  not allowed";

/// Keeps photos safe on several devices in several places, and says how safe each one is.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub(super) struct Arguments {
    /// Where this device keeps its library [default: $XDG_DATA_HOME/holdfast]
    #[arg(long, global = true, value_name = "DIR", env = "HOLDFAST_HOME", value_hint = ValueHint::DirPath, hide_env_values = true)]
    pub(super) home: Option<PathBuf>,
    /// Print JSON, one value a line
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Say more; again for still more
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    pub(super) verbose: u8,
    /// Say nothing but the answer and errors
    #[arg(short, long, global = true)]
    pub(super) quiet: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Start the node: import and watch folders, replicate. The first time, create the library
    Up(NodeArguments),
    /// Make a ticket with which one other device can join
    Invite {
        /// For how long the ticket can be used
        #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=i64::from(holdfast::api::request::INVITATION_MINUTES_MAX)))]
        minutes: u32,
    },
    /// Join the library that a ticket is for, then start the node
    Join {
        /// The ticket; `-` reads it from standard input
        #[arg(env = "HOLDFAST_TICKET", hide_env_values = true)]
        ticket: Option<String>,
        #[command(flatten)]
        node: NodeArguments,
    },
    /// Say how safe the library is
    Status,
    /// List photos, newest first
    Photos {
        /// Only photos below their target
        #[arg(long = "unsafe")]
        below_target: bool,
        /// Only photos with these words in name, caption, tags or camera
        #[arg(long, value_name = "TEXT")]
        search: Option<String>,
        /// At most so many
        #[arg(long, value_name = "N")]
        limit: Option<u64>,
    },
    /// Show one photo and who holds it
    Show {
        /// The photo's id, the beginning of it, its file name or path
        photo: String,
    },
    /// List the watched folders, or change which they are
    Folders {
        /// Name what was passed over in them, and why
        #[arg(long)]
        skipped: bool,
        #[command(subcommand)]
        action: Option<FolderAction>,
    },
    /// List the devices of the library
    Peers,
    /// Call a device now, and say how it is reached or why not
    Connect {
        /// Its name, or the beginning of its id
        device: String,
    },
    /// List what happened
    Events {
        /// Go on with what happens from now
        #[arg(long, short)]
        follow: bool,
    },
    /// Pass connections on between devices of your libraries, on a machine that everyone can dial and that holds no photos
    Relay(RelayArguments),
    /// Write the originals, byte for byte, with their folders and dates
    Export {
        /// Where to: apart from the watched folders, or a new folder in one of them, which is passed over from then on. Of
        /// files that are there already with the same content only dates and permissions are put right
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        directory: PathBuf,
    },
    /// Stop the running node
    Stop,
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Write the manual pages
    Man {
        /// Where to
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        directory: PathBuf,
    },
    /// Read hostile files in a process of its own (started by the node)
    #[command(hide = true)]
    Worker,
}

/// What is done about a watched folder.
#[derive(Debug, Subcommand)]
pub(super) enum FolderAction {
    /// Import and watch one more
    Add {
        /// Which one
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        folder: PathBuf,
    },
    /// Say that one was moved or renamed; its files are not read again
    Move {
        /// Where it was
        #[arg(value_name = "OLD")]
        from: PathBuf,
        /// Where it is now
        #[arg(value_name = "NEW", value_hint = ValueHint::DirPath)]
        to: PathBuf,
    },
    /// Watch one no longer; its photos stay, and this device keeps a copy of what it holds of them
    Remove {
        /// Which one
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        folder: PathBuf,
    },
    /// Say that a missing folder inside a watched one, or one that is being removed, need not be waited for
    Forget {
        /// Which one
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
}

/// What a node is told when it starts. All of it is remembered: the next `up` needs none of it.
#[derive(Debug, Default, Args)]
pub(super) struct NodeArguments {
    /// Folders to import and watch, besides those of earlier runs (`holdfast folders remove` lets go of one)
    #[arg(value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub(super) folders: Vec<PathBuf>,
    /// Where this device stands, such as `home`; copies in different places survive a fire
    #[arg(long, value_name = "PLACE", env = "HOLDFAST_PLACE")]
    pub(super) place: Option<String>,
    /// What this device is called [default: the machine's name]
    #[arg(long, value_name = "NAME", env = "HOLDFAST_NAME")]
    pub(super) name: Option<String>,
    /// Keep a sealed copy of each original in the store, instead of reading it from its folder
    #[arg(long)]
    pub(super) copy: bool,
    /// Listen on this multiaddress, such as `/ip4/0.0.0.0/tcp/4001` [default: everywhere, on a port that is kept]
    #[arg(long, value_name = "ADDR", env = "HOLDFAST_LISTEN", value_delimiter = ',')]
    pub(super) listen: Vec<String>,
    /// Do not look for devices on the local network
    #[arg(long = "no-mdns")]
    pub(super) no_mdns: bool,
    /// Tell other devices that this one is reached at this multiaddress too, such as a router's forwarded port
    #[arg(long, value_name = "ADDR", env = "HOLDFAST_ANNOUNCE", value_delimiter = ',')]
    pub(super) announce: Vec<String>,
    /// Do not ask the router to forward ports (UPnP)
    #[arg(long = "no-upnp")]
    pub(super) no_upnp: bool,
    /// Dial this multiaddress at the start
    #[arg(long = "peer", value_name = "ADDR", env = "HOLDFAST_PEER", value_delimiter = ',')]
    pub(super) peers: Vec<String>,
    /// Reach other devices through this relay, a multiaddress that ends in `/p2p/` and its id
    #[arg(long = "relay", value_name = "ADDR", env = "HOLDFAST_RELAY", value_delimiter = ',')]
    pub(super) relays: Vec<String>,
    /// Be a relay for devices of this library that cannot be dialled
    #[arg(long)]
    pub(super) serve_relay: bool,
}

/// What a relay is told when it starts. All of it is remembered: the next `relay` needs none of it.
#[derive(Debug, Default, Args)]
pub(super) struct RelayArguments {
    /// Serve the devices of this library; `holdfast status -v` shows its id
    #[arg(long = "library", value_name = "ID", value_delimiter = ',')]
    pub(super) libraries: Vec<LibraryId>,
    /// Listen on this multiaddress [default: port 4001, TCP and QUIC]
    #[arg(long, value_name = "ADDR", env = "HOLDFAST_LISTEN", value_delimiter = ',')]
    pub(super) listen: Vec<String>,
    /// The relay is reached at this multiaddress, if that is another one than where it listens
    #[arg(long, value_name = "ADDR", env = "HOLDFAST_ANNOUNCE", value_delimiter = ',')]
    pub(super) announce: Vec<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_transcript_of_the_manual_parses() {
        for line in [
            "holdfast up Pictures",
            "holdfast up",
            "holdfast up a b --place home --name laptop --copy --listen /ip4/127.0.0.1/tcp/0 --no-mdns --peer /ip4/127.0.0.1/tcp/4001 --relay /ip4/127.0.0.1/tcp/4001/p2p/12D3KooWH5MaK7WrLhQr2wsg9eVzje9qkTxxVeaFUd7Qx6ZHg3Ud",
            "holdfast up --announce /dns4/home.example/tcp/4001 --no-upnp --serve-relay",
            "holdfast relay --library 0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f --listen /ip4/0.0.0.0/tcp/4001 --announce /dns4/relay.example/tcp/4001",
            "holdfast relay",
            "holdfast invite",
            "holdfast invite --minutes 5",
            "holdfast join holdfast1abc --place office",
            "holdfast --home DIR join holdfast1abc --place office",
            "holdfast status --json --home DIR",
            "holdfast photos --unsafe",
            "holdfast photos --search sunset --limit 5",
            "holdfast show IMG_0412.HEIC",
            "holdfast folders",
            "holdfast folders --skipped",
            "holdfast folders add Pictures",
            "holdfast folders move Pictures Photos",
            "holdfast folders remove Pictures",
            "holdfast folders forget Pictures/2020",
            "holdfast peers",
            "holdfast connect nas",
            "holdfast events --follow",
            "holdfast export DIR",
            "holdfast completions zsh",
            "holdfast man DIR",
            "holdfast stop",
        ] {
            assert!(Arguments::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
    }

    #[test]
    fn nonsense_is_a_usage_error() {
        for line in [
            "holdfast",
            "holdfast fly",
            "holdfast invite --minutes 0",
            "holdfast status -v -q",
            "holdfast export",
            "holdfast relay --library mine",
        ] {
            assert_eq!(Arguments::try_parse_from(line.split(' ')).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
