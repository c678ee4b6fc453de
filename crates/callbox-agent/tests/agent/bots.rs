//! Bots for these tests: this test program itself, started with other words.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use callbox_protocol::agent::Prepare;

use crate::house::{House, http};

/// A bot that follows the `http` contract on a free port. `manners` says what it does badly:
/// `unready`, `no-reseed`, `deaf`, `holds-connection:PORT`, or nothing.
pub fn http_bot(house: &House, manners: &str) -> Prepare {
    let program = std::env::current_exe().unwrap();
    let program = program.to_str().unwrap();
    let argv = [program, "--exact", "bots::be_a_bot", "--nocapture"];
    let mut asked = http(&argv, free_port());
    let words = [
        ("TEST_BOT_PORT", asked.port.to_string()),
        ("TEST_BOT_MANNERS", manners.to_owned()),
        ("TEST_BOT_DIRECTORY", house.directory.path().to_str().unwrap().to_owned()),
    ];
    asked.env.extend(words.map(|(name, value)| (name.to_owned(), value)));
    asked
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// Not a test: the bot, when the environment says so.
#[test]
fn be_a_bot() {
    let Ok(port) = std::env::var("TEST_BOT_PORT") else {
        return;
    };
    let manners = std::env::var("TEST_BOT_MANNERS").unwrap();
    let held = manners
        .strip_prefix("holds-connection:")
        .map(|port| TcpStream::connect((Ipv4Addr::LOCALHOST, port.parse().unwrap())).unwrap());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.parse().unwrap())).unwrap();
    println!("the bot listens");
    for stream in listener.incoming() {
        answer(stream.unwrap(), &manners);
    }
    drop(held);
}

/// One request per connection; what was asked is written down in the directory.
fn answer(mut stream: TcpStream, manners: &str) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = String::new();
    while reader.read_line(&mut head).unwrap() > 2 {}
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.trim().parse().unwrap())];
    reader.read_exact(&mut body).unwrap();
    let path = head.split(' ').nth(1).unwrap_or_default();
    let status = match (path, manners) {
        ("/readyz", "unready") => 503,
        ("/_callbox/wake", "no-reseed") => 500,
        ("/_callbox/warning", "deaf") => 404,
        ("/readyz" | "/bot" | "/_callbox/wake" | "/_callbox/warning", _) => 200,
        _ => 404,
    };
    let directory = std::env::var("TEST_BOT_DIRECTORY").unwrap();
    let name = path.trim_start_matches('/').replace('/', "-");
    let seen = [head.as_bytes(), &body].concat();
    std::fs::write(format!("{directory}/asked-{name}"), seen).unwrap();
    write!(stream, "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        .unwrap();
}
