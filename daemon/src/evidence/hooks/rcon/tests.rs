use std::time::Duration;

use tokio::io::duplex;
use tokio::net::TcpListener;

use super::*;
use crate::config::{Action, Hook};
use crate::evidence::hooks::{self, HookError, Moment};

fn bytes(id: i32, kind: i32, body: &[u8]) -> Vec<u8> {
    let mut packet = ((FRAME + body.len()) as i32).to_le_bytes().to_vec();
    packet.extend([id.to_le_bytes(), kind.to_le_bytes()].concat());
    packet.extend(body);
    packet.extend([0, 0]);
    packet
}

/// How the server in these tests behaves; like Minecraft's it takes each read for one packet.
#[derive(Clone)]
struct Manner {
    /// Source's empty packet before the answer to a login.
    source: bool,
    answer: Vec<Vec<u8>>,
    /// Each byte in a segment of its own.
    dribble: bool,
    /// Instead of the answer to the command.
    raw: Option<Vec<u8>>,
    silent: bool,
}

impl Manner {
    fn saying(answer: &[&str]) -> Self {
        let answer = answer.iter().map(|text| text.as_bytes().to_vec()).collect();
        Self { source: false, answer, dribble: false, raw: None, silent: false }
    }
}

async fn serve(mut stream: TcpStream, manner: Manner) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = [0; 1460];
    loop {
        let len = stream.read(&mut buffer).await?;
        if len == 0 {
            return Ok(());
        }
        let number = |at: usize| i32::from_le_bytes(*buffer[at..].first_chunk().unwrap());
        assert_eq!(number(0), len as i32 - 4, "one packet a read");
        let (id, kind, body) = (number(4), number(8), &buffer[12..len - 2]);
        let mut out = Vec::new();
        match kind {
            LOGIN => {
                if manner.source {
                    out.extend(bytes(id, ANSWER, b""));
                }
                out.extend(bytes(if body == b"secret" { id } else { -1 }, LOGGED_IN, b""));
            }
            COMMAND if manner.silent => {}
            COMMAND => match &manner.raw {
                Some(raw) => out.extend(raw),
                None => manner.answer.iter().for_each(|part| out.extend(bytes(id, ANSWER, part))),
            },
            _ => out.extend(bytes(id, ANSWER, b"Unknown request 0")),
        }
        if manner.dribble {
            for byte in out {
                stream.write_all(&[byte]).await?;
                tokio::task::yield_now().await;
            }
        } else {
            stream.write_all(&out).await?;
        }
    }
}

struct Bench {
    rcon: Rcon,
    _secret: tempfile::NamedTempFile,
}

async fn bench(manner: Manner, password: &str, expect: Option<&str>) -> Bench {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        // The client hangs up where it likes.
        let _ = serve(stream, manner).await;
    });
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), password).unwrap();
    let rcon = Rcon {
        address,
        password_file: secret.path().to_owned(),
        command: "save-all flush".to_owned(),
        expect: expect.map(str::to_owned),
    };
    Bench { rcon, _secret: secret }
}

async fn outcome(manner: Manner, expect: Option<&str>) -> Result<(), RconError> {
    run(&bench(manner, "secret\n", expect).await.rcon).await
}

#[tokio::test]
async fn a_save_succeeds_in_both_dialects_and_byte_by_byte() {
    let saved = Manner::saying(&["Saving the game\nSaved the game"]);
    for manner in [saved.clone(), Manner { source: true, ..saved.clone() }, Manner { dribble: true, ..saved }]
    {
        outcome(manner.clone(), Some("Saved the game")).await.unwrap();
        outcome(manner, None).await.unwrap();
    }
    outcome(Manner::saying(&[""]), None).await.unwrap();
}

#[tokio::test]
async fn an_answer_in_several_packets_is_read_to_its_end() {
    let long = "§".repeat(4096);
    outcome(Manner::saying(&[&long, &long, "Saved the game"]), Some("Saved the game")).await.unwrap();
    outcome(Manner::saying(&[&long]), Some("§§")).await.unwrap();
    let source = "x".repeat(4096 - FRAME);
    outcome(Manner { source: true, ..Manner::saying(&[&source, "Saved"]) }, Some("xSaved")).await.unwrap();
}

#[tokio::test]
async fn another_answer_and_a_wrong_password_are_told_apart() {
    let error = outcome(Manner::saying(&["Saving \x1b[5mfailed"]), Some("Saved")).await.unwrap_err();
    assert!(error.to_string().contains("\"Saved\" was expected"), "{error}");
    assert!(!error.to_string().contains('\x1b'));
    let bench = bench(Manner::saying(&["ok"]), "hunter2", None).await;
    let error = run(&bench.rcon).await.unwrap_err();
    assert!(matches!(error, RconError::WrongPassword { .. }), "{error}");
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}

#[tokio::test]
async fn what_breaks_the_protocol_ends_the_conversation() {
    let packet = bytes(COMMAND_ID, ANSWER, b"fine");
    let with_length = |length: i32| [&length.to_le_bytes(), &packet[4..]].concat();
    let endless = bytes(COMMAND_ID, ANSWER, &[b'x'; MOST_BODY]).repeat(20);
    let mut unended = packet.clone();
    *unended.last_mut().unwrap() = 1;
    for raw in [
        with_length(-1),
        with_length(0),
        with_length(9),
        with_length(i32::MAX),
        endless,
        unended,
        bytes(77, ANSWER, b"to another"),
        bytes(COMMAND_ID, 5, b"of another kind"),
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
    ] {
        let error = outcome(Manner { raw: Some(raw), ..Manner::saying(&[]) }, None).await.unwrap_err();
        assert!(matches!(error, RconError::Protocol { .. }), "{error}");
    }
}

#[tokio::test]
async fn no_server_no_password_and_no_command_are_errors_of_their_own() {
    let Bench { rcon, _secret } = bench(Manner::saying(&["ok"]), "secret", None).await;
    let missing = Rcon { password_file: "/no/such/file".into(), ..rcon.clone() };
    assert!(matches!(run(&missing).await, Err(RconError::PasswordFile { .. })));
    for password in ["", "\n", "nul\0", &"x".repeat(5000)] {
        std::fs::write(&rcon.password_file, password).unwrap();
        assert!(matches!(run(&rcon).await, Err(RconError::Password { .. })), "{password:?}");
    }
    let long = Rcon { command: "x".repeat(5000), ..rcon.clone() };
    assert!(matches!(run(&long).await, Err(RconError::Command)));
    std::fs::write(&rcon.password_file, "secret").unwrap();
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = run(&Rcon { address: free, ..rcon }).await.unwrap_err();
    assert!(matches!(error, RconError::Connect { .. }), "{error}");
}

#[tokio::test]
async fn a_silent_server_is_waited_for_no_longer_than_allowed() {
    let bench = bench(Manner { silent: true, ..Manner::saying(&[]) }, "secret", None).await;
    let hook = Hook { action: Action::Rcon(bench.rcon.clone()), timeout: Duration::from_millis(300) };
    let error = hooks::run(&hook, "survival", Moment::BeforeDoze).await.unwrap_err();
    assert!(matches!(error, HookError::TimedOut { .. }));
    assert!(error.to_string().starts_with("RCON save-all took longer than 300ms"), "{error}");
}

proptest::proptest! {
    /// Whatever comes back: an end, bounded, without a panic.
    #[test]
    fn no_answer_makes_it_panic(
        pieces in proptest::collection::vec(
            (proptest::collection::vec(proptest::num::u8::ANY, 0..60), -2..5i32, -2..5i32, proptest::bool::ANY),
            0..12,
        ),
    ) {
        let mut raw = Vec::new();
        for (body, id, kind, framed) in pieces {
            raw.extend(if framed { bytes(id, kind, &body) } else { body });
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (ours, mut theirs) = duplex(64 * 1024);
            theirs.write_all(&raw).await.unwrap();
            theirs.shutdown().await.unwrap();
            let _ = Conversation { stream: ours, received: 0 }.hold("p", "c").await;
        });
    }
}
