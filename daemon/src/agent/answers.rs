//! Answering operators.

use std::time::{Duration, SystemTime};

use dormouse_abi::gate;
use dormouse_api::{
    Problem,
    command::{KeepRequest, Phases, SleepRequest, WakeRequest, WakeResult},
    event::EventKind,
    profile::{Explain, LayerValue, ProfileSummary, SetRequest, Setting, Target, shown},
    status::{Mode, Selector, ServerStatus, Status},
};
use tokio::sync::oneshot;

use super::{
    Agent,
    clock::boot_now,
    managed::Managed,
    operator::{Ask, To},
    saved,
    status::{told_layer, told_stage},
};
use crate::{
    adopt,
    config::{self, Override},
    limits,
    socket::Answer,
    stage::{Event, Kept, Refusal, by},
};

impl Agent {
    pub(super) fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Status(selector, to) => drop(to.send(self.status(&selector))),
            Ask::Why(name, to) => drop(to.send(self.known(&name).map(|managed| self.why(managed)))),
            Ask::DeepChecks(to) => drop(to.send(Ok(self.deep_checks()))),
            Ask::Wake(name, request, to) => self.wake(&name, request, to),
            Ask::Sleep(name, request, to) => self.sleep(&name, request, to),
            Ask::Keep(name, request, to) => drop(to.send(self.keep(&name, &request))),
            Ask::Release(name, to) => drop(to.send(self.release(&name))),
            Ask::SetMode(name, mode, to) => drop(to.send(self.set_mode(&name, mode))),
            Ask::Profiles(to) => drop(to.send(Ok(self.profiles()))),
            Ask::Explain(target, to) => drop(to.send(self.explain(&target))),
            Ask::Set(target, request, to) => drop(to.send(self.set(&target, &request))),
            Ask::Unset(target, key, to) => drop(to.send(self.unset(&target, &key))),
            Ask::Erase(subject, tenant, to) => drop(to.send(self.erase(&subject, tenant.as_deref()))),
        }
    }

    fn known(&self, name: &str) -> Answer<&Managed> {
        self.servers.get(name).ok_or_else(|| Problem::no_such_server(name))
    }

    /// A server that is there; else the reason why nothing can be done with it.
    fn present(&self, name: &str) -> Answer<&Managed> {
        let managed = self.known(name)?;
        if managed.here().is_none() {
            let reason = match &managed.presence {
                super::managed::Presence::Absent { reason, .. } => reason.as_str(),
                _ => "it is being looked for",
            };
            return Err(Problem::refused(format!("it can't be moved: {reason}")));
        }
        Ok(managed)
    }

    fn status_of(&self, name: &str) -> Answer<ServerStatus> {
        let managed = self.known(name)?;
        let flows = self.flows().get(&managed.slot).copied().unwrap_or(0);
        Ok(self.server_status(managed, flows))
    }

    fn status(&self, selector: &Selector) -> Answer<Status> {
        for name in &selector.servers {
            self.known(name)?;
        }
        let flows = self.flows();
        let servers: Vec<ServerStatus> = self
            .servers
            .iter()
            .filter(|(name, managed)| selector.selects(name, &managed.config.profile.name))
            .map(|(_, managed)| self.server_status(managed, flows.get(&managed.slot).copied().unwrap_or(0)))
            .collect();
        Ok(Status { node: self.node_status(&servers), servers })
    }

    fn wake(&mut self, name: &str, request: WakeRequest, to: To<WakeResult>) {
        let from_stage = match self.present(name) {
            Ok(managed) => managed.stage(),
            Err(problem) => return drop(to.send(Err(problem))),
        };
        let keep = request.keep.map(|keep| kept(&keep));
        let result = WakeResult {
            server: name.to_owned(),
            from_stage: told_stage(from_stage),
            phases: Phases::default(),
        };
        if from_stage == crate::stage::Stage::Awake {
            self.feed(name, Event::Wake { keep });
            return drop(to.send(Ok(result)));
        }
        let (sender, awake) = oneshot::channel();
        if let Some(managed) = self.servers.get_mut(name) {
            managed.asked_to_wake.push(sender);
        }
        self.feed(name, Event::Wake { keep });
        let (server, outbox) = (name.to_owned(), self.outbox.clone());
        tokio::spawn(async move {
            let _ = awake.await;
            // The phases are in the last wake by now; the answer at the door may be still to come.
            let (ask, why) = oneshot::channel();
            let _ = outbox.send(super::Message::Ask(Ask::Why(server, ask)));
            let phases =
                why.await.ok().and_then(Result::ok).and_then(|why| why.last_wake).map(|last| last.phases);
            let _ = to.send(Ok(WakeResult { phases: phases.unwrap_or_default(), ..result }));
        });
    }

    fn sleep(&mut self, name: &str, request: SleepRequest, to: To<ServerStatus>) {
        if let Err(problem) = self.present(name) {
            return drop(to.send(Err(problem)));
        }
        if self.was_just_woken(name) {
            return drop(to.send(Err(Problem::refused(format!("{name}: {}", Refusal::Waking)))));
        }
        let (sender, answer) = oneshot::channel();
        if let Some(managed) = self.servers.get_mut(name) {
            managed.asked_to_sleep.push(sender);
        }
        self.feed(name, Event::Sleep { deep: request.deep });
        self.look_soon(name);
        let (server, outbox) = (name.to_owned(), self.outbox.clone());
        tokio::spawn(async move {
            let told = match answer.await {
                Ok(Ok(_)) => {
                    let (ask, status) = oneshot::channel();
                    let selector = Selector { servers: vec![server.clone()], profile: None };
                    let _ = outbox.send(super::Message::Ask(Ask::Status(selector, ask)));
                    match status.await {
                        Ok(Ok(status)) => {
                            status.servers.into_iter().next().ok_or_else(|| Problem::no_such_server(&server))
                        }
                        Ok(Err(problem)) => Err(problem),
                        Err(_) => Err(Problem::internal("the daemon is stopping")),
                    }
                }
                Ok(Err(refusal)) => Err(Problem::refused(format!("{server}: {refusal}"))),
                Err(_) => Err(Problem::refused(format!("{server}: it was lost meanwhile"))),
            };
            let _ = to.send(told);
        });
    }

    /// The door woke it for a player, and the report of that is still on its way.
    fn was_just_woken(&self, name: &str) -> bool {
        let Some(managed) = self.servers.get(name) else { return false };
        let gate = self.place.node.arrays.gate(managed.slot);
        managed.stage().by().is_some() && gate::state(gate) == gate::OPEN
    }

    fn keep(&mut self, name: &str, request: &KeepRequest) -> Answer<ServerStatus> {
        self.present(name)?;
        self.feed(name, Event::Keep(kept(request)));
        self.tell(name, EventKind::Kept, Some(format!("{}{}", by(&request.owner), request.reason)));
        self.status_of(name)
    }

    fn release(&mut self, name: &str) -> Answer<ServerStatus> {
        self.present(name)?;
        self.feed(name, Event::Release);
        self.tell(name, EventKind::Released, None);
        self.status_of(name)
    }

    fn set_mode(&mut self, name: &str, mode: Mode) -> Answer<ServerStatus> {
        let managed = self.known(name)?;
        let mode = match mode {
            Mode::Observe => limits::Mode::Observe,
            Mode::Doze => limits::Mode::Doze,
            Mode::Full => limits::Mode::Full,
        };
        if mode != limits::Mode::Observe
            && let Some(reason) = &managed.config.profile.refuse
        {
            return Err(Problem::refused(format!("{name}: {reason}")));
        }
        // Written first: a mode that a restart would forget is none.
        adopt::set_mode(&managed.config.file.file, mode)
            .map_err(|error| Problem::internal(error.to_string()))?;
        if let Some(managed) = self.servers.get_mut(name) {
            managed.history.paper = None;
        }
        self.reload();
        saved::forget_demotion(&self.config.state_dir, name);
        self.feed(name, Event::Pardon);
        self.tell(name, EventKind::Mode, Some(format!("{mode:?}").to_lowercase()));
        self.changes.send_replace(());
        self.look_soon(name);
        self.status_of(name)
    }

    fn profiles(&self) -> Vec<ProfileSummary> {
        self.loaded
            .profiles
            .values()
            .map(|profile| {
                let limits = config::merge(&[profile.layer()]);
                let human = |duration: Duration| humantime::format_duration(duration).to_string();
                ProfileSummary {
                    name: profile.name.clone(),
                    servers: self.servers.values().filter(|m| m.config.profile.name == profile.name).count()
                        as u32,
                    doze_by: format!("{:?}", limits.doze_by).to_lowercase(),
                    doze_after: human(limits.doze_after),
                    deep_after: limits.deep_after.map(human),
                    floor: format!("{:?}", limits.floor).to_lowercase(),
                    verified: profile
                        .verified
                        .as_ref()
                        .map(|v| format!("{} on {} by {}", v.version, v.date, v.by)),
                }
            })
            .collect()
    }

    fn explain(&self, target: &Target) -> Answer<Explain> {
        let (name, profile, layers) = match target {
            Target::Server(name) => {
                let server = self.loaded.servers.get(name).ok_or_else(|| Problem::no_such_server(name))?;
                (name, &server.profile.name, server.layers.clone())
            }
            Target::Profile(name) => {
                let profile = self.loaded.profiles.get(name).ok_or_else(|| Problem::no_such_profile(name))?;
                (name, &profile.name, vec![profile.layer()])
            }
        };
        let settings = config::explain(&layers)
            .into_iter()
            .filter_map(|explained| {
                let winner = explained.winner()?.clone();
                let layers = explained
                    .values
                    .iter()
                    .map(|value| LayerValue {
                        layer: told_layer(value.layer),
                        value: shown(&value.value),
                        file: (value.layer != config::Layer::BuiltIn).then(|| value.from.clone()),
                        until_at_ms: None,
                    })
                    .collect();
                Some(Setting {
                    key: explained.key.to_owned(),
                    value: shown(&winner.value),
                    won: told_layer(winner.layer),
                    layers,
                })
            })
            .collect();
        Ok(Explain { name: name.clone(), profile: profile.clone(), settings })
    }

    /// The servers that an override is for.
    fn meant(&self, target: &Target) -> Answer<Vec<String>> {
        match target {
            Target::Server(name) => {
                self.known(name)?;
                Ok(vec![name.clone()])
            }
            Target::Profile(profile) => {
                if !self.loaded.profiles.contains_key(profile) {
                    return Err(Problem::no_such_profile(profile));
                }
                let of_profile = self.servers.iter().filter(|(_, m)| m.config.profile.name == *profile);
                Ok(of_profile.map(|(name, _)| name.clone()).collect())
            }
        }
    }

    fn set(&mut self, target: &Target, request: &SetRequest) -> Answer<Explain> {
        let now = SystemTime::now();
        let until = now + Duration::from_millis(request.for_ms);
        let bad = |error: config::ConfigError| Problem::bad_field(&request.key, error.to_string());
        let names = self.meant(target)?;
        // All are checked before any is written.
        let entries = names
            .iter()
            .map(|name| Override::new(name, &request.key, &request.value, until, None, now).map_err(bad))
            .collect::<Answer<Vec<Override>>>()?;
        for entry in entries {
            self.loaded.set(entry, now).map_err(bad)?;
        }
        self.reload();
        self.explain(target)
    }

    fn unset(&mut self, target: &Target, key: &str) -> Answer<Explain> {
        for name in self.meant(target)? {
            config::unset(&self.config.overrides(), &name, key, SystemTime::now())
                .map_err(|error| Problem::internal(error.to_string()))?;
        }
        self.reload();
        self.explain(target)
    }
}

fn kept(request: &KeepRequest) -> Kept {
    Kept {
        owner: request.owner.clone(),
        reason: request.reason.clone(),
        until: Some(boot_now() + Duration::from_millis(request.for_ms)),
    }
}
