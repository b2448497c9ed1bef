use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::evidence::testing::Process;

/// A server's root with a `data` directory to work in.
fn jail() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("data")).unwrap();
    fs::create_dir_all(root.path().join("etc")).unwrap();
    fs::write(root.path().join("etc/passwd"), "the server's own").unwrap();
    fs::write(root.path().join("data/plain"), "plain").unwrap();
    for (name, to) in [
        ("climbs", "../../../../../../etc/passwd"),
        ("absolute", "/etc/passwd"),
        ("magic", "/proc/self/root/etc/passwd"),
        ("circle", "circle"),
        ("nowhere", "/no/such"),
    ] {
        symlink(to, root.path().join("data").join(name)).unwrap();
    }
    root
}

fn read(process: &Process, path: &str) -> Result<String, RootError> {
    let bytes = ServerRoot::of(process.id())?.find(Path::new(path))?.read()?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn no_way_out(process: &Process) {
    assert_eq!(ServerRoot::of(process.id()).unwrap().cwd(), Path::new("/data"));
    assert_eq!(read(process, "plain").unwrap(), "plain");
    for path in ["climbs", "absolute", "/etc/passwd", "../etc/passwd", "../../../../etc/passwd"] {
        assert_eq!(read(process, path).unwrap(), "the server's own", "{path}");
    }
    assert!(matches!(read(process, "nowhere"), Err(RootError::NotFound { .. })));
    assert!(matches!(read(process, "plain/below"), Err(RootError::NotFound { .. })));
    assert!(matches!(read(process, "circle"), Err(RootError::Refused { .. })));
    assert!(read(process, "magic").is_err());
}

#[test]
fn links_of_a_chrooted_server_stay_in_its_root() {
    let root = jail();
    no_way_out(&Process::in_chroot(root.path(), "/data"));
}

#[test]
fn links_of_a_contained_server_stay_in_its_root() {
    let root = jail();
    no_way_out(&Process::in_own_mounts(root.path(), "/data"));
}

#[test]
fn a_magic_link_is_not_followed_even_where_proc_is() {
    let directory = tempfile::tempdir().unwrap();
    symlink("/proc/self/root/etc/passwd", directory.path().join("magic")).unwrap();
    let process = Process::in_directory(directory.path());
    assert!(matches!(read(&process, "magic"), Err(RootError::Refused { .. })));
}

#[test]
fn only_regular_files_of_a_sound_size_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::File::create(at("sparse")).unwrap().set_len(1 << 30).unwrap();
    fs::write(at("full"), vec![b'x'; LARGEST as usize]).unwrap();
    let process = Process::in_directory(directory.path());
    assert!(matches!(read(&process, "pipe"), Err(RootError::NotRegular { .. })));
    assert!(matches!(read(&process, "."), Err(RootError::NotRegular { .. })));
    assert!(matches!(read(&process, "/dev/zero"), Err(RootError::NotRegular { .. })));
    assert!(matches!(read(&process, "sparse"), Err(RootError::TooLarge { .. })));
    assert_eq!(read(&process, "full").unwrap().len() as u64, LARGEST);
}

#[test]
fn a_directory_that_was_removed_and_a_process_that_has_gone_are_errors() {
    let directory = tempfile::tempdir().unwrap();
    let process = Process::in_directory(directory.path());
    let id = process.id();
    drop(directory);
    let error = ServerRoot::of(id).unwrap_err();
    assert!(matches!(error, RootError::CwdOutside { .. }), "{error}");
    let later = ProcessId { start_ticks: id.start_ticks + 1, ..id };
    assert!(matches!(ServerRoot::of(later), Err(RootError::Gone { .. })));
    drop(process);
    assert!(ServerRoot::of(id).is_err());
}
