//! What the tests stand on: databases, Redis, and the real program, each ended with its guard.

pub mod control;
pub mod postgres;
pub mod redis;

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

pub use control::Start;

/// Which database a test runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    Sqlite,
    Postgres,
}

/// Each test runs on both databases.
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test]
            async fn $name() {
                super::$name($crate::support::On::Sqlite).await;
            })+
        }
        mod on_postgres {
            $(#[tokio::test]
            async fn $name() {
                super::$name($crate::support::On::Postgres).await;
            })+
        }
    };
}
pub(crate) use on_both;

/// A process that ends with the test.
pub struct Owned(pub Child);

impl Owned {
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Asks until there is an answer; a wait of more than `most` fails the test.
pub async fn until<T>(most: Duration, what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + most;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < end, "waited {most:?} for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A port that nobody listens on now.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A folder that another user may write to.
pub fn give_to(folder: &Path, user: &str) -> io::Result<()> {
    let status = Command::new("chown").arg("-R").arg(user).arg(folder).status()?;
    assert!(status.success(), "chown {user} {}", folder.display());
    let mut permissions = fs::metadata(folder)?.permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o700);
    fs::set_permissions(folder, permissions)
}
