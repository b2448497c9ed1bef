//! A folder of plain files stands in for a cgroup; the kernel's own objects are in `tests/guard`.

use std::path::Path;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const FILES: [&str; 3] = ["cgroup.freeze", "cpu.max", "memory.swap.max"];
const SLOT: u32 = 7;

struct Fixture {
    dir: TempDir,
    log: UndoLog,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("cgroup")).unwrap();
        let log = UndoLog::of_server(dir.path(), "mc/survival one", SLOT).unwrap();
        let fixture = Self { dir, log };
        for file in FILES {
            fixture.write(file, "0");
        }
        fixture
    }

    fn cgroup(&self) -> PathBuf {
        self.dir.path().join("cgroup")
    }

    fn write(&self, file: &str, value: &str) {
        std::fs::write(self.cgroup().join(file), value).unwrap();
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.cgroup().join(file)).unwrap()
    }

    fn before(&self, file: &str, new: &str) -> Seq {
        self.log.before(Change::cgroup_value(&self.cgroup(), file, new).unwrap()).unwrap()
    }

    fn change(&self, file: &str, new: &str) -> Seq {
        let seq = self.before(file, new);
        self.write(file, new);
        seq
    }

    fn log_file(&self) -> PathBuf {
        let folder = self.dir.path().join("undo");
        std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path()
    }

    fn outcomes(&self) -> Vec<Outcome> {
        let played = self.log.play_back().unwrap();
        played.changes.into_iter().map(|(_, outcome)| outcome.unwrap()).collect()
    }
}

/// Where the daemon died.
#[derive(Clone, Copy, Debug)]
enum Crash {
    /// After all of its changes.
    AtRest,
    /// Between writing the last change down and making it, with this much of the line on disk.
    BeforeTheLast { cut: usize },
    /// While it played back, after this many changes were put back and none was marked.
    WhilePlayingBack { done: usize },
}

fn crash() -> impl Strategy<Value = Crash> {
    prop_oneof![
        Just(Crash::AtRest),
        (0..400_usize).prop_map(|cut| Crash::BeforeTheLast { cut }),
        (0..8_usize).prop_map(|done| Crash::WhilePlayingBack { done }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn everything_comes_back_after_a_crash_at_any_step(
        changes in proptest::collection::vec((0..FILES.len(), 0..4_u8), 1..8),
        crash in crash(),
    ) {
        let fixture = Fixture::new();
        let mut length_before = 0;
        for (index, (file, value)) in changes.iter().enumerate() {
            if index > 0 {
                length_before = std::fs::metadata(fixture.log_file()).unwrap().len();
            }
            let new = value.to_string();
            fixture.before(FILES[*file], &new);
            if index + 1 < changes.len() || !matches!(crash, Crash::BeforeTheLast { .. }) {
                fixture.write(FILES[*file], &new);
            }
        }
        match crash {
            Crash::AtRest => {}
            Crash::BeforeTheLast { cut } => {
                let file = std::fs::File::options().write(true).open(fixture.log_file()).unwrap();
                let length = file.metadata().unwrap().len();
                file.set_len(length.min(length_before + cut as u64)).unwrap();
            }
            Crash::WhilePlayingBack { done } => {
                for entry in fixture.log.contents().unwrap().pending.iter().rev().take(done) {
                    entry.change.put_back().unwrap();
                }
            }
        }
        let played = fixture.log.play_back().unwrap();
        prop_assert!(played.changes.iter().all(|(_, outcome)| outcome.is_ok()));
        for file in FILES {
            prop_assert_eq!(fixture.read(file), "0");
        }
        prop_assert_eq!(fixture.log.contents().unwrap().pending, vec![]);
        prop_assert!(fixture.log.play_back().unwrap().changes.is_empty());
    }
}

#[test]
fn a_log_tells_whose_it_is_and_goes_when_it_is_empty() {
    let fixture = Fixture::new();
    let seq = fixture.change("cpu.max", "5");
    let other = fixture.change("memory.swap.max", "1");
    assert!(other > seq);
    let found = logs(fixture.dir.path()).unwrap();
    assert_eq!(found[0].owner(), &Owner::Server("mc/survival one".to_owned()));
    assert_eq!(found[0].contents().unwrap().pending[0].slot, Some(SLOT));
    fixture.log.undone(&[seq]).unwrap();
    assert_eq!(fixture.log.contents().unwrap().pending.len(), 1);
    fixture.log.undone(&[seq, other]).unwrap();
    assert!(logs(fixture.dir.path()).unwrap().is_empty());
    fixture.log.undone(&[seq, other]).unwrap();
    assert!(fixture.before("cpu.max", "5") > other, "numbers do not come back");
}

#[test]
fn a_torn_line_is_said_and_cut_off_before_the_next() {
    let fixture = Fixture::new();
    fixture.change("cpu.max", "5");
    let mut bytes = std::fs::read(fixture.log_file()).unwrap();
    bytes.extend_from_slice(br#"{"seq":12,"ki"#);
    std::fs::write(fixture.log_file(), &bytes).unwrap();
    assert_eq!(fixture.log.contents().unwrap().unreadable, 1);
    fixture.change("memory.swap.max", "1");
    let contents = fixture.log.contents().unwrap();
    assert_eq!((contents.pending.len(), contents.unreadable), (2, 0));
}

#[test]
fn a_value_of_somebody_else_is_left_alone_but_a_freeze_never() {
    let fixture = Fixture::new();
    fixture.change("cpu.max", "5");
    fixture.change("cgroup.freeze", "1");
    fixture.write("cpu.max", "77");
    fixture.write("cgroup.freeze", "2");
    assert_eq!(fixture.outcomes(), [Outcome::Restored, Outcome::Foreign { found: "77".to_owned() }]);
    assert_eq!((fixture.read("cpu.max").as_str(), fixture.read("cgroup.freeze").as_str()), ("77", "0"));
}

#[test]
fn what_is_gone_is_a_success_and_a_new_cgroup_is_not_touched() {
    let fixture = Fixture::new();
    fixture.change("cpu.max", "5");
    fixture.change("memory.swap.max", "1");
    std::fs::remove_file(fixture.cgroup().join("memory.swap.max")).unwrap();
    std::fs::rename(fixture.cgroup(), fixture.dir.path().join("old")).unwrap();
    let before = fixture.log.contents().unwrap().pending;
    assert_eq!(before[0].change.put_back().unwrap(), Outcome::Vanished);
    std::fs::create_dir(fixture.cgroup()).unwrap();
    fixture.write("cpu.max", "5");
    assert_eq!(fixture.outcomes(), [Outcome::Replaced, Outcome::Replaced]);
    assert_eq!(fixture.read("cpu.max"), "5");
}

#[test]
fn a_failure_stays_in_the_log_and_stops_nothing() {
    let fixture = Fixture::new();
    fixture.change("cpu.max", "5");
    let broken = fixture.dir.path().join("folder");
    std::fs::create_dir(&broken).unwrap();
    let change = Change::Sysctl { path: broken, old: "0".to_owned(), new: "1".to_owned() };
    fixture.log.before(change).unwrap();
    let played = fixture.log.play_back().unwrap();
    assert!(played.changes[0].1.is_err());
    assert_eq!(fixture.read("cpu.max"), "0");
    assert_eq!(fixture.log.contents().unwrap().pending.len(), 1);
}

#[test]
fn two_writers_lose_nothing() {
    let fixture = Fixture::new();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let log = UndoLog::of_server(fixture.dir.path(), "mc/survival one", SLOT).unwrap();
                for _ in 0..25 {
                    let kept = log.before(pin("kept")).unwrap();
                    let seq = log.before(pin("gone")).unwrap();
                    assert_ne!(kept, seq);
                    log.undone(&[seq]).unwrap();
                }
            });
        }
    });
    let contents = fixture.log.contents().unwrap();
    assert_eq!((contents.pending.len(), contents.unreadable), (50, 0));
    assert!(contents.pending.iter().all(|entry| entry.change == pin("kept")));
}

#[test]
fn a_name_too_long_is_refused() {
    let error = UndoLog::of_server(Path::new("/run"), &"x".repeat(300), SLOT).unwrap_err();
    assert!(matches!(error, UndoError::NameTooLong { .. }));
}

fn pin(name: &str) -> Change {
    Change::Pin { path: Path::new("/nowhere").join(name) }
}
