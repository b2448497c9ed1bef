//! A Minecraft login on a real server, asleep and awake, as the client measures it.

use std::{thread, time::Duration};

use anyhow::Result;
use dormouse_packet::Game;
use dormouse_tests::{clients, servers::minecraft};

use crate::{
    report::{Figure, Goal},
    sleepers::Sleepers,
    stats::{median, median_of_rounds},
};

const PORT: u16 = 25565;
/// The server sends chunks for some 70 ms after a login: work that would freeze with it and go on after the
/// thaw.
const SETTLE: Duration = Duration::from_millis(800);

/// Measures.
pub fn run(rounds: usize) -> Result<Figure> {
    let mut stand = Sleepers::new(1)?;
    let server = stand.add(0, PORT, Game::MinecraftJava, |place| minecraft::start(place, PORT))?;
    let mut number = 0;
    let mut login = |asleep: bool| -> Result<f64> {
        thread::sleep(SETTLE);
        if asleep {
            server.doze()?;
            thread::sleep(SETTLE);
        }
        number += 1;
        let name = format!("bench{number}");
        let answer =
            stand.player(|| clients::minecraft::login(server.address, &name, Duration::from_secs(10)))?;
        Ok(answer.first_reply.as_secs_f64() * 1000.0)
    };
    // The first logins compile the server's JavaScript.
    for asleep in [false, true, false] {
        login(asleep)?;
    }
    let (mut ratios, mut awake, mut slept) = (vec![], vec![], vec![]);
    for _ in 0..rounds {
        let [a, b, c, d] = [login(false)?, login(true)?, login(true)?, login(false)?];
        awake.extend([a, d]);
        slept.extend([b, c]);
        ratios.push((b + c) / (a + d));
    }
    println!("Minecraft login, ms p50: awake {:.2}, asleep {:.2}", median(&awake), median(&slept));
    Ok(Figure::new("login_p50_ratio", median_of_rounds(&ratios), Goal::Reported))
}
