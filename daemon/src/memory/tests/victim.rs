//! A process whose memory moves, in a cgroup of its own, and the swap that it moves to.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

use super::super::Cancel;
use super::super::group::Group;
use super::super::page_out::{Bounds, PagedOut, page_out};
use super::super::pagemap::{Pagemap, State};
use super::super::prefetch::{Beside, Prefetched, Progress, prefetch};
use super::super::ranges;
use super::super::regions::Regions;
use super::super::swap::Facts;
use super::super::working_set::{Looks, Wake, WorkingSets};

/// Swap belongs to the machine: suites that need it take turns.
pub(super) fn take_turn() -> Flock<File> {
    let file = OpenOptions::new().create(true).append(true).open("/tmp/dormouse-swap.lock").unwrap();
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, e)| e).unwrap()
}

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The machine's swap, or 1 GiB of our own while this lives.
pub(super) struct Swap {
    pub(super) own: Option<(PathBuf, tempfile::TempDir)>,
    /// A zram device that is ours.
    zram: Option<u32>,
    _turn: Flock<File>,
}

impl Swap {
    pub(super) fn new() -> Self {
        let turn = take_turn();
        if Facts::read().unwrap().size() > 0 {
            return Self { own: None, zram: None, _turn: turn };
        }
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = dir.path().join("dormouse-test-swap");
        let name = path.to_str().unwrap().to_owned();
        run("fallocate", &["-l", "1GiB", &name]);
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        run("mkswap", &[&name]);
        run("swapon", &[&name]);
        Self { own: Some((path, dir)), zram: None, _turn: turn }
    }

    /// 512 MiB of compressed memory, if the machine has no other swap and can.
    pub(super) fn zram() -> Option<Self> {
        let turn = take_turn();
        if Facts::read().unwrap().size() > 0 {
            return None;
        }
        let number = fs::read_to_string("/sys/class/zram-control/hot_add").ok()?.trim().parse().unwrap();
        let swap = Self { own: None, zram: Some(number), _turn: turn };
        let device = format!("/dev/zram{number}");
        fs::write(format!("/sys/block/zram{number}/disksize"), "512M").unwrap();
        run("mkswap", &[&device]);
        run("swapon", &[&device]);
        Some(swap)
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        if let Some((path, _)) = &self.own {
            let _ = Command::new("swapoff").arg(path).status();
        }
        if let Some(number) = self.zram {
            let _ = Command::new("swapoff").arg(format!("/dev/zram{number}")).status();
            let _ = fs::write(format!("/sys/block/zram{number}/reset"), "1");
            let _ = fs::write("/sys/class/zram-control/hot_remove", number.to_string());
        }
    }
}

/// Holds random data in 64 separate mappings and answers to words on its standard input.
const VICTIM: &str = r"
import mmap, os, sys, zlib
mib, kind = int(sys.argv[1]), sys.argv[2]
size = mib << 20
part = size // 64
areas = []
for _ in range(64):
    m = mmap.mmap(-1, part, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for at in range(0, part, 1 << 20):
        m[at:at + (1 << 20)] = os.urandom(min(1 << 20, part - at))
    if kind == 'split':
        for at in range(0, part, 1 << 15):
            m.madvise(mmap.MADV_DONTDUMP, at, 1 << 14)
    areas.append(m)
if kind == 'odd':
    import ctypes
    def anonymous(size, more=0):
        return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | more)
    locked = anonymous(4 << 20)
    locked[:] = b'l' * (4 << 20)
    address = ctypes.addressof(ctypes.c_char.from_buffer(locked))
    if ctypes.CDLL(None).mlock(ctypes.c_void_p(address), ctypes.c_size_t(4 << 20)):
        raise OSError('mlock')
    huge = anonymous(16 << 20)
    huge.madvise(mmap.MADV_HUGEPAGE)
    huge[:] = os.urandom(1 << 20) * 16
    zeros = anonymous(32 << 20)
    for at in range(0, 32 << 20, 4096):
        zeros[at] = 0
    areas += [huge, zeros]
    try:
        reserved = anonymous(2 << 20, 0x40000)
        reserved[0] = 1
    except OSError:
        pass
shared = mmap.mmap(-1, 1 << 20, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
shared[:] = b'x' * (1 << 20)
print('ready', flush=True)
for line in sys.stdin:
    word, *rest = line.split()
    if word == 'sum':
        crc = 0
        for m in areas:
            crc = zlib.crc32(m, crc)
        print(crc, flush=True)
    elif word == 'touch':
        for m in areas[:int(rest[0])]:
            for at in range(0, part, 4096):
                m[at]
        print('touched', flush=True)
    elif word == 'grow':
        grown = mmap.mmap(-1, int(rest[0]) << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        grown[:] = os.urandom(1 << 20) * int(rest[0])
        print('grown', flush=True)
    elif word == 'hole':
        areas.pop(int(rest[0])).close()
        print('closed', flush=True)
";

pub(super) struct Victim {
    pub(super) child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    pub(super) group: Group,
    /// Of the v1 memory controller, where the machine is hybrid: the exact weight to judge the judge by.
    weight: Option<PathBuf>,
}

impl Victim {
    pub(super) fn new(mib: u64, kind: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("dormouse-memory-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let unified = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
        let root = unified.iter().map(Path::new).find(|p| p.join("cgroup.controllers").exists()).unwrap();
        let group = Group::new(root.join(&name));
        let weight =
            Some(Path::new("/sys/fs/cgroup/memory").join(&name)).filter(|p| p.parent().unwrap().exists());
        // Into its cgroups before it allocates: the shell waits for a line.
        let mut child = Command::new("sh")
            .args(["-c", "read go; exec \"$@\"", "sh", "python3", "-c", VICTIM, &mib.to_string(), kind])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut victim = Self { child, input, output, group, weight };
        for folder in [Some(victim.group.path().to_owned()), victim.weight.clone()].into_iter().flatten() {
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("cgroup.procs"), victim.pid().to_string()).unwrap();
        }
        assert_eq!(victim.ask("go"), "ready");
        victim
    }

    pub(super) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub(super) fn ask(&mut self, word: &str) -> String {
        writeln!(self.input, "{word}").unwrap();
        let mut answer = String::new();
        self.output.read_line(&mut answer).unwrap();
        answer.trim().to_owned()
    }

    pub(super) fn freeze(&self, frozen: bool) {
        fs::write(self.group.path().join("cgroup.freeze"), if frozen { "1" } else { "0" }).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.group.is_frozen().unwrap() != frozen {
            assert!(Instant::now() < deadline, "the freezer did not answer");
            thread::yield_now();
        }
    }

    pub(super) fn page_out(&self, cancel: &Cancel) -> PagedOut {
        page_out(&self.group, Bounds::default(), cancel, &mut |_, _| Ok(())).unwrap()
    }

    /// Frozen, and all of it out.
    pub(super) fn go_deep(&self) -> PagedOut {
        self.freeze(true);
        self.page_out(&Cancel::default())
    }

    pub(super) fn wake(&self, sets: &WorkingSets) -> Prefetched {
        let (progress, cancel) = (Progress::default(), Cancel::default());
        let pids = [self.pid()];
        thread::scope(|scope| {
            let work = scope.spawn(|| prefetch(&pids, sets, Beside::SERVER, u64::MAX, &progress, &cancel));
            self.freeze(false);
            work.join().unwrap()
        })
    }

    pub(super) fn record(&self, sets: &mut WorkingSets, wake: Wake) {
        let mut looks = Looks::new(wake);
        looks.look(self.pid(), 0).unwrap();
        sets.record(looks);
    }

    pub(super) fn bytes(&self, state: State) -> u64 {
        let regions = Regions::of_process(self.pid()).unwrap().spans();
        ranges::total(&Pagemap::open(self.pid()).unwrap().pages(state, &regions).unwrap())
    }

    /// Bytes charged to it, swap cache included.
    pub(super) fn weight(&self) -> Option<u64> {
        let text = fs::read_to_string(self.weight.as_ref()?.join("memory.usage_in_bytes")).unwrap();
        text.trim().parse().ok()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = fs::write(self.group.path().join("cgroup.freeze"), "0");
        let _ = self.child.wait();
        for folder in [Some(self.group.path()), self.weight.as_deref()].into_iter().flatten() {
            for _ in 0..100 {
                if fs::remove_dir(folder).is_ok() {
                    break;
                }
                thread::sleep(Duration::from_millis(10));
            }
        }
    }
}
