//! The day's budget of writes to swap: drawn up once a minute, before and after each page-out.

use std::collections::BTreeSet;

use dormouse_api::status::DeepWrites;

use super::{Agent, clock::unix_now_ms};
use crate::{
    budget::{Budget, Writer},
    stage::Obstacle,
};

/// As it was drawn up last.
#[derive(Debug, Default)]
pub struct Wear {
    today: u64,
    /// Servers that may not write now.
    over: BTreeSet<String>,
}

impl Agent {
    pub(super) fn draw_up_the_budget(&mut self) {
        self.draw_up_the_budget_for(None);
    }

    /// `asking`: its own page-out, which is ordered but not begun, is to be judged.
    fn draw_up_the_budget_for(&mut self, asking: Option<&str>) {
        let wear = self.books.wear(unix_now_ms());
        let today = wear.values().map(|wear| wear.today).sum();
        for (name, wear) in &wear {
            self.metrics.swap_written_today(name, wear.today);
        }
        let Some(a_day) = self.config.deep_write_budget else {
            self.wear = Wear { today, over: BTreeSet::new() };
            return;
        };
        let writers: Vec<Writer<'_>> = self
            .servers
            .iter()
            .map(|(name, managed)| {
                let wear = wear.get(name).copied().unwrap_or_default();
                let going = managed.here().is_some_and(|here| here.machine.is_going_deep());
                Writer {
                    name,
                    worth: wear.worth,
                    usual: wear.usual,
                    today: wear.today,
                    next: managed.history.last_written.unwrap_or(managed.history.size_bytes),
                    underway: going && asking != Some(name),
                }
            })
            .collect();
        let over = Budget { a_day, today }.over(&writers).into_iter().map(str::to_owned).collect();
        self.wear = Wear { today, over };
    }

    /// Why this server may not write to swap now.
    pub(super) fn over_budget(&self, name: &str) -> Option<Obstacle> {
        let budget = self.config.deep_write_budget.filter(|_| self.wear.over.contains(name))?;
        let mib = |bytes: u64| bytes >> 20;
        Some(Obstacle {
            code: "write-budget",
            text: format!(
                "{} of {} MiB a day were written to swap (deep_write_budget), and what is left is for servers that \
                 hand back more for each byte; again after midnight UTC",
                mib(self.wear.today),
                mib(budget)
            ),
        })
    }

    /// [`Agent::over_budget`] of this very moment. A node that is short of memory writes all the same: a wake must not
    /// fail for the drive's sake.
    pub(super) fn forbids_page_out(&mut self, name: &str) -> Option<Obstacle> {
        self.config.deep_write_budget?;
        self.draw_up_the_budget_for(Some(name));
        self.over_budget(name).filter(|_| self.pool.short() == 0)
    }

    pub(super) fn deep_writes(&self) -> Option<DeepWrites> {
        let budget_bytes = self.config.deep_write_budget?;
        Some(DeepWrites { today_bytes: self.wear.today, budget_bytes })
    }
}
