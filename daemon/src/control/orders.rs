//! Carrying out commands: each at most once, none that is late, no sleep that was decided on another state.
//!
//! A command's id is on the disk before it is begun. One that comes again is answered as the first time; one that a
//! crash cut off is not begun again: nobody knows how far it came, and a sleep must never come over a player.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dormouse_api::Problem;
use dormouse_api::command::{KeepRequest, SleepRequest, WakeRequest};
use dormouse_api::registry::erasure::NOBODY;
use dormouse_api::registry::node::{Command, CommandAnswer, CommandState, DecidedOn, Order};
use dormouse_api::status::{Selector, ServerStatus};
use serde::{Deserialize, Serialize};

use super::copy::write;
use crate::socket::Operator;
use crate::stage::by;

/// Commands live for a minute: older ids never come again.
const REMEMBERED: usize = 1000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Begun {
    id: String,
    /// `None`: under way, or cut off.
    answer: Option<CommandAnswer>,
}

/// What was begun, newest last.
#[derive(Debug)]
pub struct Journal {
    file: PathBuf,
    begun: VecDeque<Begun>,
    /// Begun by an earlier daemon without an answer.
    cut_off: Vec<String>,
}

/// What is to be done with a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    Begin,
    /// It is under way.
    Wait,
    Answer(CommandAnswer),
}

impl Journal {
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        let file = state_dir.join("control/commands.json");
        let begun: VecDeque<Begun> = match std::fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text).map_err(io::Error::other)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => VecDeque::new(),
            Err(error) => return Err(error),
        };
        let cut_off = begun.iter().filter(|one| one.answer.is_none()).map(|one| one.id.clone()).collect();
        Ok(Self { file, begun, cut_off })
    }

    /// Notes a new command before it is begun.
    pub fn take(&mut self, id: &str) -> io::Result<Taken> {
        if let Some(known) = self.begun.iter().find(|one| one.id == id) {
            return Ok(match &known.answer {
                Some(answer) => Taken::Answer(answer.clone()),
                None if self.cut_off.iter().any(|cut| cut == id) => {
                    Taken::Answer(answer(CommandState::Refused, "dormoused was restarted while it was done"))
                }
                None => Taken::Wait,
            });
        }
        if self.begun.len() == REMEMBERED {
            self.begun.pop_front();
        }
        self.begun.push_back(Begun { id: id.to_owned(), answer: None });
        self.save()?;
        Ok(Taken::Begin)
    }

    pub fn done(&mut self, id: &str, answer: &CommandAnswer) -> io::Result<()> {
        if let Some(known) = self.begun.iter_mut().find(|one| one.id == id) {
            known.answer = Some(answer.clone());
        }
        self.save()
    }

    /// Answers that name a person as the owner of a keep name nobody; how many did.
    pub fn forget(&mut self, person: &str) -> io::Result<u64> {
        let (named, nobody) = (by(person), by(NOBODY));
        let mut count = 0;
        for detail in self.begun.iter_mut().filter_map(|one| one.answer.as_mut()?.detail.as_mut()) {
            if detail.contains(&named) {
                *detail = detail.replace(&named, &nobody);
                count += 1;
            }
        }
        // Also where nothing is left: an earlier try may not have come to the disk.
        self.save()?;
        Ok(count)
    }

    fn save(&self) -> io::Result<()> {
        write(&self.file, &serde_json::to_vec(&self.begun)?)
    }
}

fn answer(state: CommandState, detail: impl Into<String>) -> CommandAnswer {
    CommandAnswer { state, detail: Some(detail.into()) }
}

/// Does it, or says why not. `received`: when it came, on this machine's clock.
pub async fn carry_out(operator: &impl Operator, command: &Command, received: Instant) -> CommandAnswer {
    if received.elapsed() >= Duration::from_millis(command.expires_in_ms) {
        return answer(CommandState::Expired, "it came too late");
    }
    match obey(operator, command).await {
        Ok(()) => CommandAnswer { state: CommandState::Done, detail: None },
        Err(problem) => answer(CommandState::Refused, problem.to_string()),
    }
}

async fn obey(operator: &impl Operator, command: &Command) -> Result<(), Problem> {
    let server = command.server.clone();
    match &command.order {
        Order::Wake => operator.wake(server, WakeRequest::default()).await.map(drop),
        Order::Sleep { deep } => {
            let selector = Selector { servers: vec![server.clone()], profile: None };
            let status = operator.status(selector).await?;
            if let Some(now) = status.servers.first() {
                as_decided(command.decided_on, now)?;
            }
            operator.sleep(server, SleepRequest { deep: *deep }).await.map(drop)
        }
        Order::Keep { for_ms, reason, owner } => {
            let request = KeepRequest { for_ms: *for_ms, reason: reason.clone(), owner: owner.clone() };
            operator.keep(server, request).await.map(drop)
        }
        Order::Release => operator.release(server).await.map(drop),
        Order::SetMode { mode } => operator.set_mode(server, *mode).await.map(drop),
    }
}

/// A sleep that was decided before the last change of stage is dropped: a player may have come since.
fn as_decided(decided_on: Option<DecidedOn>, now: &ServerStatus) -> Result<(), Problem> {
    match decided_on {
        Some(then) if then.stage == now.stage && then.since_at_ms == now.since_at_ms => Ok(()),
        _ => Err(Problem::refused("it has changed its stage since this was decided")),
    }
}

#[cfg(test)]
mod tests {
    use dormouse_api::status::{Mode, Stage};

    use super::*;

    #[test]
    fn a_command_is_begun_once_also_over_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let done = CommandAnswer { state: CommandState::Done, detail: None };
        let mut journal = Journal::open(folder.path()).unwrap();
        assert_eq!(journal.take("one").unwrap(), Taken::Begin);
        assert_eq!(journal.take("one").unwrap(), Taken::Wait);
        assert_eq!(journal.take("two").unwrap(), Taken::Begin);
        journal.done("one", &done).unwrap();
        let mut journal = Journal::open(folder.path()).unwrap();
        assert_eq!(journal.take("one").unwrap(), Taken::Answer(done));
        let Taken::Answer(cut_off) = journal.take("two").unwrap() else { panic!("begun twice") };
        assert_eq!(cut_off.state, CommandState::Refused);
        for number in 0..REMEMBERED {
            assert_eq!(journal.take(&number.to_string()).unwrap(), Taken::Begin);
        }
        assert_eq!(journal.begun.len(), REMEMBERED);
    }

    #[test]
    fn a_person_is_forgotten_on_the_disk_too() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path()).unwrap();
        let kept = |owner: &str| crate::stage::Refusal::Kept { owner: owner.into(), reason: "x".into() };
        for owner in ["person-1", "person-17"] {
            journal.take(owner).unwrap();
            let refused = answer(CommandState::Refused, format!("acme/x: {}", kept(owner)));
            journal.done(owner, &refused).unwrap();
        }
        assert_eq!(journal.forget("person-1").unwrap(), 1);
        assert_eq!(journal.forget("person-1").unwrap(), 0);
        let mut journal = Journal::open(folder.path()).unwrap();
        let detail = |journal: &mut Journal, id| match journal.take(id).unwrap() {
            Taken::Answer(answer) => answer.detail.unwrap(),
            other => panic!("{other:?}"),
        };
        assert_eq!(detail(&mut journal, "person-1"), "acme/x: kept by erased: x");
        assert_eq!(detail(&mut journal, "person-17"), "acme/x: kept by person-17: x");
    }

    #[test]
    fn a_sleep_is_for_the_state_it_was_decided_on() {
        let now = ServerStatus {
            name: "acme/x".to_owned(),
            profile: "luanti".to_owned(),
            mode: Mode::Full,
            stage: Stage::Awake,
            since_at_ms: 1000,
            flows: 0,
            resident_bytes: 0,
            size_bytes: 0,
            last_player_at_ms: None,
            kept: None,
            note: None,
            pings_answered: 0,
            scans_refused: 0,
            deep_wake: None,
        };
        let on = |stage, since_at_ms| Some(DecidedOn { stage, since_at_ms, version: 1 });
        assert!(as_decided(on(Stage::Awake, 1000), &now).is_ok());
        assert!(as_decided(on(Stage::Awake, 900), &now).is_err(), "woken since");
        assert!(as_decided(on(Stage::Dozing, 1000), &now).is_err());
        assert!(as_decided(None, &now).is_err());
    }
}
