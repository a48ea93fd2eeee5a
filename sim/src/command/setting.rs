//! Which run: a seed, and how it differs from what the seed alone would be. Goes both ways: from arguments to options,
//! and from options to the one line that replays them.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use holdfast_protocol::limits::PEERS_MAX;
use holdfast_sim::fault::{FaultClass, UnknownFaultClass};
use holdfast_sim::options::Options;
use serde_json::Value;

/// Why a setting is not one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SettingRefused {
    #[error(transparent)]
    Class(#[from] UnknownFaultClass),
    #[error("--set {0}: write OPTION=VALUE")]
    Change(String),
    #[error("--set {option}: {why}")]
    Option { option: String, why: String },
    #[error("{0:?} is not WHICH:NUMBER or WHICH:FIRST-LAST")]
    Skip(String),
    #[error("a world has from 1 to {PEERS_MAX} nodes, as many as a library has members; `scale` is for more")]
    Nodes,
    #[error("--hours must be more than 0 and at most 100,000")]
    Hours,
}

/// What kind of worlds.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Shape {
    /// How many nodes, instead of what the seed says.
    #[arg(long)]
    nodes: Option<usize>,
    /// For how many virtual hours there is work and faults.
    #[arg(long)]
    hours: Option<f64>,
    /// Which classes of faults strike: exactly these; or the seed's without `-a`, with `+a`; or `all`, or `none`.
    #[arg(long, value_name = "CLASSES", value_delimiter = ',', allow_hyphen_values = true)]
    faults: Vec<String>,
    /// Any option of the run, by its name in a record.
    #[arg(long = "set", value_name = "OPTION=VALUE")]
    changes: Vec<String>,
}

/// What is left out.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Skips {
    /// Gestures to leave out, as NODE:NUMBER or NODE:FIRST-LAST.
    #[arg(long, value_name = "GESTURES", value_delimiter = ',')]
    skip_gestures: Vec<String>,
    /// Strikes of faults to leave out, as CLASS:NUMBER or CLASS:FIRST-LAST.
    #[arg(long, value_name = "STRIKES", value_delimiter = ',')]
    skip_strikes: Vec<String>,
}

impl Shape {
    /// The options of `seed`, as far as nothing else is said here.
    pub(crate) fn options(&self, seed: u64) -> Result<Options, SettingRefused> {
        let mut options = Options::of(seed);
        if let Some(hours) = self.hours {
            if !(hours > 0.0 && hours <= 100_000.0) {
                return Err(SettingRefused::Hours);
            }
            options = options.lasting((hours * 3_600_000.0).max(1.0) as u64);
        }
        options.nodes = self.nodes.unwrap_or(options.nodes);
        for change in &self.changes {
            options = changed(&options, change)?;
        }
        if !(1..=PEERS_MAX).contains(&options.nodes) {
            return Err(SettingRefused::Nodes);
        }
        options.classes = chosen(&self.faults, &options.classes)?;
        Ok(options)
    }
}

impl Skips {
    /// `options` without what is to be left out.
    pub(crate) fn applied_to(&self, mut options: Options) -> Result<Options, SettingRefused> {
        for text in &self.skip_gestures {
            let (node, numbers) = range::<usize>(text)?;
            options.skipped_gestures.extend(numbers.map(|number| (node, number)));
        }
        for text in &self.skip_strikes {
            let (class, numbers) = range::<FaultClass>(text)?;
            options.skipped_strikes.extend(numbers.map(|number| (class, number)));
        }
        Ok(options)
    }
}

fn chosen(words: &[String], of_seed: &BTreeSet<FaultClass>) -> Result<BTreeSet<FaultClass>, SettingRefused> {
    let is_change = words.first().is_none_or(|word| word.starts_with(['-', '+']));
    let mut classes = if is_change { of_seed.clone() } else { BTreeSet::new() };
    for word in words {
        match word.as_str() {
            "none" => classes.clear(),
            "all" => classes.extend(FaultClass::ALL),
            word => match word.strip_prefix('-') {
                Some(name) => drop(classes.remove(&name.parse()?)),
                None => drop(classes.insert(word.strip_prefix('+').unwrap_or(word).parse()?)),
            },
        }
    }
    Ok(classes)
}

fn changed(options: &Options, change: &str) -> Result<Options, SettingRefused> {
    let (option, text) = change.split_once('=').ok_or_else(|| SettingRefused::Change(change.to_owned()))?;
    let refused = |why: String| SettingRefused::Option { option: option.to_owned(), why };
    let value = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
    let mut fields = fields(options);
    let field = fields.get_mut(option).ok_or_else(|| refused("there is no such option".to_owned()))?;
    *field = value;
    serde_json::from_value(fields.into_iter().collect()).map_err(|error| refused(error.to_string()))
}

/// The options by name. What the derived code writes always is a map.
pub(crate) fn fields(options: &Options) -> BTreeMap<String, Value> {
    match serde_json::to_value(options) {
        Ok(Value::Object(fields)) => fields.into_iter().collect(),
        _ => BTreeMap::new(),
    }
}

fn range<T: FromStr>(text: &str) -> Result<(T, std::ops::RangeInclusive<u64>), SettingRefused> {
    let refused = || SettingRefused::Skip(text.to_owned());
    let (which, numbers) = text.split_once(':').ok_or_else(refused)?;
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let parsed = (which.parse().ok(), first.parse().ok(), last.parse().ok());
    let (Some(which), Some(first), Some(last)) = parsed else { return Err(refused()) };
    if last >= first && last - first < 1 << 20 { Ok((which, first..=last)) } else { Err(refused()) }
}

/// The command that runs `seed` with `options`: says only in what they differ from the seed's own.
pub(crate) fn command_line(verb: &str, seed: u64, options: &Options) -> String {
    let mut words = vec![format!("holdfast-sim {verb} --seed {seed}")];
    let own = fields(&Options::of(seed));
    for (option, value) in fields(options) {
        if own.get(&option) == Some(&value) {
            continue;
        }
        match option.as_str() {
            "nodes" => words.push(format!("--nodes {value}")),
            "classes" if options.classes.is_empty() => words.push("--faults none".to_owned()),
            "classes" => {
                let names: Vec<&str> = options.classes.iter().map(|class| class.name()).collect();
                words.push(format!("--faults {}", names.join(",")));
            }
            "skipped_gestures" => words.push(format!("--skip-gestures {}", ranges(&options.skipped_gestures))),
            "skipped_strikes" => words.push(format!("--skip-strikes {}", ranges(&options.skipped_strikes))),
            _ if value.is_number() || value.is_boolean() => words.push(format!("--set {option}={value}")),
            _ => words.push(format!("--set '{option}={value}'")),
        }
    }
    words.join(" ")
}

fn ranges<T: Copy + Ord + std::fmt::Display>(skipped: &BTreeSet<(T, u64)>) -> String {
    let mut spans: Vec<(T, u64, u64)> = Vec::new();
    for &(which, number) in skipped {
        match spans.last_mut() {
            Some((of, _, last)) if *of == which && *last + 1 == number => *last = number,
            _ => spans.push((which, number, number)),
        }
    }
    let text = |(which, first, last): &(T, u64, u64)| match first == last {
        true => format!("{which}:{first}"),
        false => format!("{which}:{first}-{last}"),
    };
    spans.iter().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[arg(long)]
        seed: u64,
        #[command(flatten)]
        shape: Shape,
        #[command(flatten)]
        skips: Skips,
    }

    fn parsed(line: &str) -> Result<Options, SettingRefused> {
        let words = line.split(' ').skip(1).map(|word| word.trim_matches('\''));
        let line = Line::try_parse_from(words).unwrap();
        line.skips.applied_to(line.shape.options(line.seed)?)
    }

    #[test]
    fn the_printed_line_is_read_back_as_the_same_options() {
        for seed in 0..50 {
            let options = Options {
                nodes: 7,
                heal_ms: 1234,
                delay_ms: 3,
                classes: FaultClass::ALL.iter().copied().skip(seed as usize % FaultClass::ALL.len()).collect(),
                skipped_gestures: BTreeSet::from([(0, 1), (0, 2), (0, 3), (2, 9)]),
                skipped_strikes: BTreeSet::from([(FaultClass::Crash, 0), (FaultClass::Crash, 2)]),
                ..Options::of(seed)
            };
            assert_eq!(parsed(&command_line("run", seed, &options)), Ok(options));
        }
        assert_eq!(command_line("run", 4, &Options::of(4)), "holdfast-sim run --seed 4");
        let calm = Options { classes: BTreeSet::new(), ..Options::of(1) };
        assert_eq!(parsed(&command_line("run", 1, &calm)), Ok(calm));
    }

    #[test]
    fn classes_are_named_added_and_taken_away() {
        let of_seed = BTreeSet::from([FaultClass::Crash, FaultClass::Cut]);
        let chosen = |words: &str| {
            let words: Vec<String> = words.split(',').map(ToOwned::to_owned).collect();
            super::chosen(&words, &of_seed).map(|classes| classes.len())
        };
        assert_eq!(chosen("separate"), Ok(1));
        assert_eq!(chosen("-crash"), Ok(1));
        assert_eq!(chosen("+separate,-cut,-crash"), Ok(1));
        assert_eq!(chosen("all"), Ok(FaultClass::ALL.len()));
        assert_eq!(chosen("all,-cut"), Ok(FaultClass::ALL.len() - 1));
        assert_eq!(chosen("none"), Ok(0));
        assert!(chosen("gremlins").is_err());
    }

    #[test]
    fn wrong_settings_are_refused() {
        for wrong in [
            "--set delay_ms",
            "--set delays=4",
            "--set nodes=many",
            "--nodes 0",
            "--nodes 257",
            "--hours -1",
            "--hours NaN",
        ] {
            assert!(parsed(&format!("x x --seed 1 {}", wrong.replace("--hours -1", "--hours=-1"))).is_err(), "{wrong}");
        }
        for wrong in ["1", "1:", "1:4-2", "x:1", "1:0-99999999"] {
            assert!(parsed(&format!("x x --seed 1 --skip-gestures {wrong}")).is_err(), "{wrong}");
        }
    }
}
