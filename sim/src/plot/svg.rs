//! Three panels over one axis of time.

use std::fmt::Write as _;

use super::Sample;

const WIDTH: f64 = 960.0;
const LEFT: f64 = 78.0;
const RIGHT: f64 = 150.0;
const PANEL: f64 = 170.0;
const GAP: f64 = 46.0;
const TOP: f64 = 62.0;
const TITLE_CHARS_MAX: usize = 92;
/// Few copies are red, many are green.
const FEWEST: (f64, f64, f64) = (196.0, 58.0, 49.0);
const MIDDLE: (f64, f64, f64) = (240.0, 200.0, 96.0);
const MOST: (f64, f64, f64) = (46.0, 132.0, 92.0);
const BLUE: &str = "#31688e";
const ORANGE: &str = "#d8742a";
const GREY: &str = "#8a8f98";

struct Panel {
    top: f64,
    value_max: f64,
    from_ms: f64,
    to_ms: f64,
}

impl Panel {
    fn x(&self, at_ms: u64) -> f64 {
        LEFT + (at_ms as f64 - self.from_ms) / (self.to_ms - self.from_ms).max(1.0) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        self.top + PANEL * (1.0 - value / self.value_max)
    }

    /// Frame, title and four values at the left.
    fn frame(&self, out: &mut String, title: &str) {
        let width = WIDTH - LEFT - RIGHT;
        for step in 0..=4 {
            let value = self.value_max * f64::from(step) / 4.0;
            // A tenth where it is not a whole number.
            let (y, text) = (self.y(value), (value * 10.0).round() / 10.0);
            element(out, format_args!(r##"<path d="M{LEFT} {y:.1}h{width}" stroke="#e4e6ea"/>"##));
            let (x, y) = (LEFT - 8.0, y + 4.0);
            element(out, format_args!(r#"<text x="{x}" y="{y:.1}" text-anchor="end">{text}</text>"#));
        }
        let y = self.top - 10.0;
        element(out, format_args!(r#"<text x="{LEFT}" y="{y}" font-weight="600">{title}</text>"#));
    }

    fn line(&self, out: &mut String, colour: &str, points: impl Iterator<Item = (u64, f64)>) {
        let mut path = String::new();
        for (at, value) in points {
            let verb = if path.is_empty() { 'M' } else { 'L' };
            let _ = write!(path, "{verb}{:.1} {:.1}", self.x(at), self.y(value));
        }
        element(out, format_args!(r#"<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"/>"#));
    }

    fn legend(&self, out: &mut String, row: usize, colour: &str, text: &str) {
        let (x, y) = (WIDTH - RIGHT + 14.0, self.top + 4.0 + row as f64 * 18.0);
        element(out, format_args!(r#"<rect x="{x}" y="{y}" width="11" height="11" rx="2" fill="{colour}"/>"#));
        let (x, y) = (x + 18.0, y + 10.0);
        element(out, format_args!(r#"<text x="{x}" y="{y}">{text}</text>"#));
    }
}

/// See the head of the module above.
pub(super) fn draw(samples: &[Sample], title: &str, faults_stop_at: u64) -> String {
    let height = TOP + 3.0 * (PANEL + GAP);
    let mut out = String::new();
    let font = r#"font-family="system-ui, sans-serif" font-size="12" fill="currentColor""#;
    let size = format!(r#"viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}""#);
    element(&mut out, format_args!(r##"<svg xmlns="http://www.w3.org/2000/svg" {size} {font} color="#22262c">"##));
    element(&mut out, format_args!(r##"<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>"##));
    let mut title: String = title.into();
    if title.chars().count() > TITLE_CHARS_MAX {
        title = title.chars().take(TITLE_CHARS_MAX).chain(['…']).collect();
    }
    let title = title.replace('&', "&amp;").replace('<', "&lt;");
    element(&mut out, format_args!(r#"<text x="{LEFT}" y="26" font-size="15" font-weight="600">{title}</text>"#));
    if let (Some(first), Some(last)) = (samples.first(), samples.last()) {
        let panel = |number: f64, value_max: f64| Panel {
            top: TOP + number * (PANEL + GAP),
            value_max,
            from_ms: first.at_ms as f64,
            to_ms: last.at_ms as f64,
        };
        let photos = samples.iter().map(|sample| sample.photos_by_copies.iter().sum::<u64>()).max().unwrap_or(0);
        copies(&mut out, &panel(0.0, round_up(photos as f64)), samples);
        let megabytes = last.traffic.total() as f64 / 1e6;
        bytes(&mut out, &panel(1.0, round_up(megabytes)), samples);
        let nodes = last.photos_by_copies.len() - 1;
        agreement(&mut out, &panel(2.0, nodes.max(1) as f64), samples);
        time_axis(&mut out, &panel(2.0, 1.0), first.at_ms, last.at_ms, faults_stop_at);
    }
    out.push_str("</svg>\n");
    out
}

fn copies(out: &mut String, panel: &Panel, samples: &[Sample]) {
    panel.frame(out, "Photos by how many nodes hold them whole");
    let levels = samples.iter().map(|sample| sample.photos_by_copies.len()).max().unwrap_or(0);
    // From the fewest copies at the top to the most at the bottom: what is at risk is what stands out.
    let at_least = |sample: &Sample, level: usize| sample.photos_by_copies.iter().skip(level).sum::<u64>() as f64;
    for level in 0..levels {
        let mut path = String::new();
        for sample in samples {
            let verb = if path.is_empty() { 'M' } else { 'L' };
            let _ = write!(path, "{verb}{:.1} {:.1}", panel.x(sample.at_ms), panel.y(at_least(sample, level)));
        }
        for sample in samples.iter().rev() {
            let _ = write!(path, "L{:.1} {:.1}", panel.x(sample.at_ms), panel.y(at_least(sample, level + 1)));
        }
        let colour = shade(level, levels - 1);
        element(out, format_args!(r#"<path d="{path}Z" fill="{colour}"/>"#));
    }
    let rows = levels.min(9);
    for row in 0..rows {
        let level = row * (levels - 1) / (rows - 1).max(1);
        let noun = if level == 1 { "copy" } else { "copies" };
        panel.legend(out, row, &shade(level, levels - 1), &format!("{level} {noun}"));
    }
}

fn bytes(out: &mut String, panel: &Panel, samples: &[Sample]) {
    panel.frame(out, "Megabytes sent so far, all nodes");
    let total = |sample: &Sample| (sample.at_ms, sample.traffic.total() as f64 / 1e6);
    let control =
        |sample: &Sample| (sample.at_ms, (sample.traffic.control_bytes + sample.traffic.gossip_bytes) as f64 / 1e6);
    panel.line(out, BLUE, samples.iter().map(total));
    panel.line(out, ORANGE, samples.iter().map(control));
    panel.legend(out, 0, BLUE, "everything");
    panel.legend(out, 1, ORANGE, "without chunks");
}

fn agreement(out: &mut String, panel: &Panel, samples: &[Sample]) {
    panel.frame(out, "Nodes that are up, and that hold every photo");
    panel.line(out, GREY, samples.iter().map(|sample| (sample.at_ms, sample.up as f64)));
    panel.line(out, BLUE, samples.iter().map(|sample| (sample.at_ms, sample.whole as f64)));
    panel.legend(out, 0, GREY, "up");
    panel.legend(out, 1, BLUE, "hold all");
}

fn time_axis(out: &mut String, panel: &Panel, from_ms: u64, to_ms: u64, faults_stop_at: u64) {
    let (bottom, span) = (panel.top + PANEL, to_ms.saturating_sub(from_ms));
    let (unit_ms, unit) = match span {
        0..180_000 => (1000.0, "s"),
        180_000..10_800_000 => (60_000.0, "min"),
        10_800_000..259_200_000 => (3_600_000.0, "h"),
        _ => (86_400_000.0, "days"),
    };
    for step in 0..=6 {
        let at = from_ms + span * step / 6;
        let (x, y, value) = (panel.x(at), bottom + 20.0, at as f64 / unit_ms);
        element(out, format_args!(r#"<text x="{x:.1}" y="{y}" text-anchor="middle">{value:.1} {unit}</text>"#));
    }
    if (from_ms..=to_ms).contains(&faults_stop_at) {
        let x = panel.x(faults_stop_at);
        let dash = r##"stroke="#22262c" stroke-dasharray="4 4""##;
        element(out, format_args!(r#"<path d="M{x:.1} {TOP}V{bottom}" {dash}/>"#));
        let y = TOP - 10.0;
        element(out, format_args!(r#"<text x="{x:.1}" y="{y}" text-anchor="middle">faults stop</text>"#));
    }
}

/// From red over yellow to green.
fn shade(level: usize, last: usize) -> String {
    let at = level as f64 / last.max(1) as f64 * 2.0;
    let (from, to, part) = if at < 1.0 { (FEWEST, MIDDLE, at) } else { (MIDDLE, MOST, at - 1.0) };
    let mix = |from: f64, to: f64| from + (to - from) * part;
    format!("rgb({:.0},{:.0},{:.0})", mix(from.0, to.0), mix(from.1, to.1), mix(from.2, to.2))
}

/// The next number of the form 1, 2, 4 or 8 times a power of ten.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.max(0.1).log10().floor());
    let steps = [1.0, 2.0, 4.0, 8.0, 10.0];
    steps.into_iter().map(|step| step * power).find(|rounded| *rounded >= value).unwrap_or(value)
}

fn element(out: &mut String, element: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = out.write_fmt(element);
    out.push('\n');
}
