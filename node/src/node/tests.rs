//! A whole node, in this process, on the loopback interface.

use std::fs::{self, File};
use std::time::Duration;

use super::*;
use crate::api::view::Status;
use crate::api::{Happening, Request, Response};
use crate::home::Discovery;

struct Running {
    _directory: tempfile::TempDir,
    node: Node,
}

impl Running {
    /// A node of a new library, with photos in its folder.
    async fn start(photos: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("Pictures");
        fs::create_dir(&folder).unwrap();
        for photo in photos {
            let path = folder.join(photo);
            fs::write(&path, [&[0xff, 0xd8, 0xff, 0xe0][..], photo.as_bytes(), &[1; 100]].concat()).unwrap();
            let long_ago = SystemTime::now() - Duration::from_secs(3600);
            File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
        }
        let home = Home::at(directory.path().join("home"));
        home.create().unwrap();
        let lock = home.lock().unwrap();
        found("laptop").unwrap().keep(&home).unwrap();
        let settings = Settings {
            folders: vec![folder],
            listen: vec!["/ip4/127.0.0.1/tcp/0".to_owned()],
            discovery: Discovery::Off,
            ..Settings::default()
        };
        let config = NodeConfig { home, lock, settings, worker: None, events: EventLog::new() };
        Self { _directory: directory, node: Node::start(config).await.unwrap() }
    }

    async fn status(&self) -> Status {
        match self.node.handle().ask(Request::Status).await.unwrap() {
            Response::Status(status) => *status,
            other => panic!("{other:?}"),
        }
    }

    /// The first event that `wanted` takes.
    async fn until<T>(&self, wanted: impl Fn(&Happening) -> Option<T>) -> T {
        let (recent, mut coming) = self.node.handle().events().follow();
        let found = recent.iter().find_map(|event| wanted(&event.happening));
        let waiting = async {
            loop {
                if let Some(found) = wanted(&coming.recv().await.unwrap().happening) {
                    return found;
                }
            }
        };
        match found {
            Some(found) => found,
            None => tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap(),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_photo_is_told_of_once_it_is_in_the_library() {
    let running = Running::start(&["a.jpg"]).await;
    let name = running.until(|happening| match happening {
        Happening::Imported { name, .. } => Some(name.clone()),
        _ => None,
    });
    assert_eq!(name.await, "a.jpg");
    let status = running.status().await;
    assert_eq!((status.photos, status.held_here, status.place.as_deref()), (1, 1, Some("home")));
    let photos = running.until(|happening| match happening {
        Happening::ImportFinished { photos, failed: 0 } => Some(*photos),
        _ => None,
    });
    assert_eq!(photos.await, 1);
    running.node.stop();
    running.node.wait().await.unwrap();
}
