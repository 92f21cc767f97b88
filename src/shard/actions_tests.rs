//! What a core does with its sockets has a budget in each turn.

use std::net::TcpListener;

use super::stage::{Act, Drive, Stage, Turn, node};
use crate::RpcEnv;

#[test]
fn many_peers_that_are_asked_at_once_are_dialled_a_few_in_a_turn_and_none_is_forgotten() {
    const PEERS: usize = 300;
    let stage = Stage::new(Drive::Alone);
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = node("client", 1);
    let core = stage.core(&client, 0, None);
    let shard = stage.shard(core);
    stage.on(core, || {
        for number in 0..PEERS {
            let uri = format!("ringpost://knock@127.1.{}.{}:{port}", number / 200, number % 200 + 1);
            let peer = RpcEnv::inside(client.clone()).endpoint_ref(&uri).unwrap();
            drop(crate::spawn(async move { peer.ask(Act(0)).await }));
        }
    });

    let mut most = 0;
    loop {
        let before = shard.connections.borrow().len();
        let turn = stage.turn(core);
        most = most.max(shard.connections.borrow().len() - before);
        if turn == Turn::Asleep {
            break;
        }
    }

    assert_eq!((shard.connections.borrow().len(), most), (PEERS, 16));
}
