//! No bytes and no lengths, however false, can do more than give a verdict.

use dormouse_packet::window::WINDOW;
use dormouse_packet::{Class, Game, Window, classify};
use proptest::prelude::*;

const GAMES: [Game; 5] =
    [Game::GenericTcp, Game::GenericUdp, Game::MinecraftJava, Game::Luanti, Game::Teeworlds];

proptest! {
    #[test]
    fn never_panics(
        bytes in proptest::collection::vec(any::<u8>(), WINDOW),
        start in proptest::sample::select(vec![vec![], b"PROXY ".to_vec(), b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec(), vec![0x4f, 0x45, 0x74, 3]]),
        len in prop_oneof![0..=WINDOW, any::<usize>()],
        total in prop_oneof![0..=2 * WINDOW, any::<usize>()],
        nth in any::<u32>(),
    ) {
        let mut buffer = [0; WINDOW];
        buffer.copy_from_slice(&bytes);
        buffer[..start.len()].copy_from_slice(&start);
        for game in GAMES {
            classify(game, &Window::new(&buffer, len, total), nth);
        }
    }
}

#[test]
fn generic_games_need_a_payload_or_a_second_datagram() {
    let buffer = [0; WINDOW];
    let verdict = |game, len, nth| classify(game, &Window::new(&buffer, len, len), nth);
    assert_eq!(verdict(Game::GenericTcp, 0, 1), Class::Undecided);
    assert_eq!(verdict(Game::GenericTcp, 1, 1), Class::Player);
    assert_eq!(verdict(Game::GenericUdp, 9, 1), Class::Undecided);
    assert_eq!(verdict(Game::GenericUdp, 9, 2), Class::Player);
}

#[test]
fn only_streams_cannot_be_forged() {
    let spoofable: Vec<_> = GAMES.into_iter().filter(|game| game.spoofable()).collect();
    assert_eq!(spoofable, [Game::GenericUdp, Game::Luanti, Game::Teeworlds]);
}
