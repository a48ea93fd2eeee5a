//! Power cuts: `kill -9` at random moments. What was shown stays true, and little is sent twice.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use holdfast_protocol::id::PhotoId;
use holdfast_tests::node::Node;
use holdfast_tests::photos::{Photo, write_settled};

use crate::changes::holds;
use crate::replication::{assert_exports, pair};

const IMPORT_CUTS: u64 = 25;
const FETCHER_CUTS: u64 = 13;
const SOURCE_CUTS: u64 = 12;

/// Moments, from a seed that a failure prints and `HOLDFAST_TEST_SEED` repeats. What the machine does meanwhile is not
/// repeated.
struct Moments(u64);

impl Moments {
    fn new() -> Self {
        let given = std::env::var("HOLDFAST_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let seed = given.unwrap_or(since.as_nanos() as u64);
        println!("HOLDFAST_TEST_SEED={seed}");
        Self(seed)
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        most * (self.0 >> 40) as u32 / (1 << 24)
    }
}

/// What a node has shown.
#[derive(Default)]
struct Shown {
    listed: BTreeSet<PhotoId>,
    safe: BTreeSet<PhotoId>,
}

impl Shown {
    /// Asks the node until `moment` has passed, and checks that nothing it listed before is missing.
    fn watch(&mut self, node: &Node, moment: Duration) {
        let begin = Instant::now();
        while begin.elapsed() < moment {
            let Some(photos) = node.try_photos() else { continue };
            let listed: BTreeSet<_> = photos.iter().map(|photo| photo.id).collect();
            let lost: Vec<_> = self.listed.difference(&listed).collect();
            assert!(lost.is_empty(), "photos that were listed are not any more: {lost:?}");
            self.listed = listed;
            self.safe.extend(photos.iter().filter(|photo| photo.safe).map(|photo| photo.id));
        }
    }
}

/// A folder into which a camera writes.
struct Camera {
    folder: PathBuf,
    photos: u64,
    bytes: u64,
}

impl Camera {
    fn new(folder: &Path) -> Self {
        fs::create_dir(folder).unwrap();
        Self { folder: folder.to_owned(), photos: 0, bytes: 0 }
    }

    fn take(&mut self, photo: &Photo) {
        let jpeg = photo.jpeg();
        write_settled(&self.folder.join(format!("IMG_{:04}.jpg", self.photos)), &jpeg, self.photos).unwrap();
        self.photos += 1;
        self.bytes += jpeg.len() as u64;
    }
}

#[test]
fn power_cuts_during_import() {
    let mut moments = Moments::new();
    let directory = tempfile::tempdir().unwrap();
    let mut camera = Camera::new(&directory.path().join("Pictures"));
    let mut home = Node::new(directory.path(), "home");
    let up: [OsString; 2] = ["up".into(), camera.folder.as_os_str().to_owned()];
    let mut shown = Shown::default();
    for cut in 0..IMPORT_CUTS {
        for _ in 0..3 {
            camera.take(&Photo::new(camera.photos));
        }
        home.spawn(up.clone());
        // Every other cut comes while the node still starts, perhaps.
        if cut % 2 == 1 {
            home.wait_until("its first answer", |_| true);
        }
        shown.watch(&home, Duration::from_millis(50) + moments.up_to(Duration::from_millis(900)));
        home.kill();
    }
    println!("{} of {} photos were shown before the last cut", shown.listed.len(), camera.photos);
    home.spawn(up);
    home.wait_until("its first answer", |_| true);
    shown.watch(&home, Duration::from_millis(1));
    home.wait_until_held(camera.photos);
    assert_exports(&home, &camera.folder, &directory.path().join("export"));
}

#[test]
fn power_cuts_during_replication() {
    const PHOTO_BYTES: u32 = 1_000_000;
    // What is on its way when a cut comes.
    const RESENT_BYTES_MAX: u64 = 2 * PHOTO_BYTES as u64;
    let mut moments = Moments::new();
    let directory = tempfile::tempdir().unwrap();
    let mut camera = Camera::new(&directory.path().join("Pictures"));
    camera.take(&Photo::of_bytes(0, PHOTO_BYTES));
    let (mut home, mut office) = pair(directory.path(), &camera.folder);
    home.wait_until_safe(1);
    let (mut at_home, mut at_office) = (Shown::default(), Shown::default());

    let mut before = None;
    for cut in 0..FETCHER_CUTS + SOURCE_CUTS {
        if cut == FETCHER_CUTS {
            // The source ran all the time: it knows what it sent. From now on the fetcher does.
            let received = office.wait_until_held(camera.photos).traffic.received;
            before = Some((camera.bytes, received));
            let sent = home.status().traffic.sent;
            println!("{FETCHER_CUTS} cuts of the fetcher: {sent} bytes were sent for {}", camera.bytes);
            let most = camera.bytes * 11 / 10 + FETCHER_CUTS * RESENT_BYTES_MAX;
            assert!(sent <= most, "{sent} bytes were sent for {}, {most} are allowed", camera.bytes);
        }
        for _ in 0..2 {
            camera.take(&Photo::of_bytes(camera.photos, PHOTO_BYTES));
        }
        at_home.watch(&home, moments.up_to(Duration::from_millis(800)));
        at_office.watch(&office, moments.up_to(Duration::from_millis(400)));
        let victim = if cut < FETCHER_CUTS { &mut office } else { &mut home };
        victim.kill();
        victim.spawn(["up".into()]);
    }
    home.wait_until("its first answer", |_| true);
    let received = office.wait_until_held(camera.photos).traffic.received;
    let (bytes, received) = before.map(|before| (camera.bytes - before.0, received - before.1)).unwrap();
    println!("{SOURCE_CUTS} cuts of the source: {received} bytes were received for {bytes}");
    assert!(received <= bytes * 11 / 10, "chunks that were held were fetched again: {received} bytes for {bytes}");
    println!("{} of {} photos were shown as safe", at_home.safe.union(&at_office.safe).count(), camera.photos);

    // Each device alone holds what any of them had shown as safe.
    let safe: BTreeSet<_> = at_home.safe.union(&at_office.safe).copied().collect();
    home.kill();
    office.kill();
    for (node, shown) in [(&mut office, &mut at_office), (&mut home, &mut at_home)] {
        node.up(&[], &[]);
        shown.watch(node, Duration::from_millis(1));
        for photo in &safe {
            assert!(holds(node, photo), "a photo that was safe is not held any more: {photo}");
        }
        node.kill();
    }
    home.up(&[], &[]);
    office.up(&[], &[]);
    home.wait_until_safe(camera.photos);
    office.wait_until_safe(camera.photos);
    assert_exports(&home, &camera.folder, &directory.path().join("export at home"));
    assert_exports(&office, &camera.folder, &directory.path().join("export at the office"));
}
