//! The pool's book is drawn up once a second; where it does not come out, somebody goes deeper.

use dormouse_api::event::EventKind;

use super::{Agent, managed::Managed};
use crate::{
    pool::{Deepening, Memory, Pool, Remedy, Sleeper},
    stage::Event,
};

impl Agent {
    pub(super) fn draw_up_the_pool(&mut self) {
        let memory = match Memory::read() {
            Ok(memory) => memory,
            Err(error) => return tracing::error!(%error, "/proc/meminfo can't be read: no headroom is kept"),
        };
        let sleepers: Vec<Sleeper<'_>> =
            self.servers.iter().filter_map(|(name, managed)| sleeper(name, managed)).collect();
        let pool = Pool::new(memory, self.config.headroom_wakes, &sleepers);
        let remedy = pool.remedy(&sleepers);
        let exhausted = remedy == Remedy::Nobody;
        self.metrics.pool(&pool, exhausted);
        let deepen = match remedy {
            Remedy::Deepen(name) => Some(name.to_owned()),
            _ => None,
        };
        self.pool = pool;
        let was_exhausted = std::mem::replace(&mut self.pool_exhausted, exhausted);
        if let Some(name) = deepen {
            tracing::info!(
                server = name,
                short = pool.short(),
                "the node lacks headroom for wakes: it goes deep"
            );
            self.feed(&name, Event::PoolLow);
        } else if exhausted && !was_exhausted {
            let detail = format!(
                "{} MiB are missing to the headroom for wakes, and nobody can go deeper: stop or move a server",
                pool.short() >> 20
            );
            tracing::warn!("{detail}");
            self.tell_of_node(EventKind::PoolShort, detail);
        }
    }
}

fn sleeper<'a>(name: &'a str, managed: &Managed) -> Option<Sleeper<'a>> {
    let here = managed.here()?;
    let machine = &here.machine;
    machine.stage().by()?;
    let deepening = match () {
        () if machine.is_going_deep() => Deepening::Underway,
        () if machine.could_go_deep() => Deepening::Possible,
        () => Deepening::No,
    };
    Some(Sleeper {
        name,
        idle_since: machine.idle_since(),
        handed_back: managed.history.handed_back.map_or(0, |handed| handed.bytes),
        deepening,
    })
}
