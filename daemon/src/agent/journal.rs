//! What happened: the last events, and whoever follows along.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use dormouse_api::{event::Event, registry::erasure::NOBODY};
use tokio::sync::mpsc;

use crate::stage::by;

/// How many events are kept.
const KEPT: usize = 4096;
/// A follower that lags by more is let go: it reads the past again.
const FOLLOWER_LAG: usize = 1024;

#[derive(Default)]
pub struct Journal(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    past: VecDeque<Event>,
    followers: Vec<mpsc::Sender<Event>>,
}

impl Journal {
    pub fn note(&self, event: Event) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.followers.retain(|follower| follower.try_send(event.clone()).is_ok());
        if inner.past.len() == KEPT {
            inner.past.pop_front();
        }
        inner.past.push_back(event);
    }

    /// Takes the addresses out of the past of these servers, and a person's name; how many events had one.
    ///
    /// The node's own events have neither.
    pub fn erase(&self, person: &str, meant: impl Fn(&str) -> bool) -> u64 {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (named, nobody) = (by(person), by(NOBODY));
        let mut count = 0;
        for event in inner.past.iter_mut().filter(|event| event.server.as_deref().is_some_and(&meant)) {
            let had_address = event.from.take().is_some();
            let detail = event.detail.as_mut().filter(|detail| detail.contains(&named));
            let had_name = detail.map(|detail| *detail = detail.replace(&named, &nobody)).is_some();
            count += u64::from(had_address || had_name);
        }
        count
    }

    /// The past, oldest first, and with `follow` what happens from now on.
    pub fn read(&self, follow: bool) -> mpsc::Receiver<Event> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (sender, receiver) = mpsc::channel(inner.past.len() + FOLLOWER_LAG);
        for event in &inner.past {
            // There is room for all of it.
            let _ = sender.try_send(event.clone());
        }
        if follow {
            inner.followers.push(sender);
        }
        receiver
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dormouse_api::event::EventKind;

    fn event(at_ms: u64) -> Event {
        Event {
            at_ms,
            kind: EventKind::Wake,
            server: None,
            profile: None,
            from: None,
            class: None,
            phases: None,
            detail: None,
        }
    }

    #[tokio::test]
    async fn the_past_comes_first_and_a_follower_goes_on() {
        let journal = Journal::default();
        journal.note(event(1));
        let mut past = journal.read(false);
        let mut all = journal.read(true);
        journal.note(event(2));
        assert_eq!(past.recv().await.map(|e| e.at_ms), Some(1));
        assert_eq!(past.recv().await, None);
        assert_eq!(all.recv().await.map(|e| e.at_ms), Some(1));
        assert_eq!(all.recv().await.map(|e| e.at_ms), Some(2));
    }

    #[tokio::test]
    async fn a_person_is_erased_of_one_tenants_past_or_of_all() {
        let journal = Journal::default();
        for (at_ms, server) in [(1, "acme/x"), (2, "core/x")] {
            let (server, from) = (Some(server.to_owned()), Some("192.0.2.1:4000".to_owned()));
            let detail = Some(format!("{}party", by("person-1")));
            journal.note(Event { server, from, detail, ..event(at_ms) });
        }
        assert_eq!(journal.erase("person-2", |server| server.starts_with("acme/")), 1, "the address");
        assert_eq!(journal.erase("person-1", |_| true), 2);
        assert_eq!(journal.erase("person-1", |_| true), 0);
        let mut past = journal.read(false);
        while let Some(event) = past.recv().await {
            assert_eq!((event.from, event.detail.as_deref()), (None, Some("by erased: party")));
        }
    }

    #[test]
    fn a_follower_who_does_not_read_is_let_go() {
        let journal = Journal::default();
        let _lazy = journal.read(true);
        for at in 0..2000 {
            journal.note(event(at));
        }
        assert!(journal.0.lock().unwrap().followers.is_empty());
    }
}
