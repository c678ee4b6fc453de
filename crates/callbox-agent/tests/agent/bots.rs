//! Bots for these tests: this test program itself, started with other words.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use callbox_protocol::agent::Prepare;

use crate::house::{House, http};

/// A bot that follows the `http` contract on a free port. `manners` says what it does badly:
/// `unready`, `ready-when-told`, `no-reseed`, `bare-200`, `other-generation`, `deaf`, `holds-connection:PORT`, or nothing.
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
    let directory = std::env::var("TEST_BOT_DIRECTORY").unwrap();
    let told = std::path::Path::new(&directory).join("ready").exists();
    let status = match (path, manners) {
        ("/readyz", "ready-when-told") if !told => 503,
        ("/readyz", "unready") => 503,
        ("/_callbox/wake", "no-reseed") => 500,
        ("/_callbox/warning", "deaf") => 404,
        ("/readyz" | "/bot" | "/_callbox/wake" | "/_callbox/warning", _) => 200,
        _ => 404,
    };
    let generation = match (path, manners) {
        ("/_callbox/wake", "other-generation") => "0".repeat(32),
        ("/_callbox/wake", "bare-200") => String::new(),
        ("/_callbox/wake", _) => asked_generation(&body),
        _ => String::new(),
    };
    let answer = match generation.as_str() {
        "" => String::new(),
        id => format!(r#"{{"generation_id":"{id}","reseeded":["everything"]}}"#),
    };
    let name = path.trim_start_matches('/').replace('/', "-");
    let seen = [head.as_bytes(), &body].concat();
    std::fs::write(format!("{directory}/asked-{name}"), seen).unwrap();
    let length = answer.len();
    let head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}");
    write!(stream, "{head}\r\n\r\n{answer}").unwrap();
}

fn asked_generation(body: &[u8]) -> String {
    let wake: serde_json::Value = serde_json::from_slice(body).unwrap();
    wake["generation_id"].as_str().unwrap().to_owned()
}
