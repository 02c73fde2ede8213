//! The actor of these tests: a small HTTP server that counts in memory and does what it is told.
//!
//! `app PORT [NAME]`. Paths: `/` counts; `/read/PATH`, `/write/PATH/TEXT`, `/env/NAME`, `/host`, `/log/COUNT`,
//! `/fill/MIB`, `/connect/ADDRESS`, `/exit/CODE`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

fn main() {
    let mut args = std::env::args().skip(1);
    let port: u16 = args.next().and_then(|p| p.parse().ok()).unwrap_or(8080);
    let name = args.next().unwrap_or_default();
    println!("listening on {port}");
    eprintln!("a word to stderr");
    let listener = TcpListener::bind(("0.0.0.0", port)).expect("bind");
    let mut count = 0u64;
    let mut held: Vec<Vec<u8>> = Vec::new();
    let mut connections = Vec::new();
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        let mut line = String::new();
        let mut reader = BufReader::new(stream.try_clone().expect("clone"));
        if !reader.read_line(&mut line).is_ok_and(|n| n > 0) {
            continue;
        }
        let mut header = String::new();
        while reader.read_line(&mut header).is_ok_and(|n| n > 2) {
            header.clear();
        }
        let path = line.split(' ').nth(1).unwrap_or("/").to_owned();
        let parts: Vec<&str> = path.splitn(3, '/').skip(1).collect();
        let rest = parts.get(1).copied().unwrap_or("");
        let answer = match parts[0] {
            "" => {
                count += 1;
                format!("{name}{count}")
            }
            "readyz" => "ready".into(),
            "read" => std::fs::read_to_string(format!("/{rest}")).unwrap_or_else(|e| format!("error: {e}")),
            "write" => {
                let (file, text) = rest.rsplit_once('/').unwrap_or((rest, ""));
                match std::fs::write(format!("/{file}"), text) {
                    Ok(()) => "written".into(),
                    Err(e) => format!("error: {e}"),
                }
            }
            "env" => std::env::var(rest).unwrap_or_default(),
            "host" => std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default(),
            "log" => {
                let line = "x".repeat(1000);
                for _ in 0..rest.parse().unwrap_or(1u32) {
                    println!("{line}");
                }
                "logged".into()
            }
            "fill" => {
                let size = rest.parse::<usize>().unwrap_or(1) << 20;
                held.push((0..size).map(|i| (i / 3 % 251) as u8).collect());
                held.len().to_string()
            }
            "connect" => match TcpStream::connect(rest) {
                Ok(mut c) => {
                    let mut greeting = [0u8; 5];
                    let read = c.read_exact(&mut greeting);
                    connections.push(c);
                    format!("{read:?}")
                }
                Err(e) => format!("error: {e}"),
            },
            "exit" => std::process::exit(rest.parse().unwrap_or(0)),
            _ => "?".into(),
        };
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}", answer.len());
        // The client closes first: what is closed here first would linger for a minute.
        let _ = reader.read(&mut [0]);
    }
}
