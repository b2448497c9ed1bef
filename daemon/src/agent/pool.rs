//! The pool's book is drawn up once a second; where it does not come out, somebody goes deeper.

use dormouse_api::event::EventKind;

use super::{Agent, managed::Managed};
use crate::{
    pool::{self, Deepening, Pool, Sleeper},
    stage::Event,
};

impl Agent {
    pub(super) fn draw_up_the_pool(&mut self) {
        let available = match pool::available() {
            Ok(available) => available,
            Err(error) => return tracing::error!(%error, "/proc/meminfo can't be read: no headroom is kept"),
        };
        let sleepers: Vec<Sleeper<'_>> =
            self.servers.iter().filter_map(|(name, managed)| sleeper(name, managed)).collect();
        let pool = Pool::new(available, self.config.headroom_wakes, &sleepers);
        let deepen = pool.deepen(&sleepers).map(str::to_owned);
        let was_short = std::mem::replace(&mut self.pool, pool).short() > 0;
        self.metrics.pool(&pool);
        if let Some(name) = deepen {
            tracing::info!(
                server = name,
                short = pool.short(),
                "the node lacks headroom for wakes: it goes deep"
            );
            self.feed(&name, Event::PoolLow);
        } else if pool.short() > 0 && !was_short {
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
