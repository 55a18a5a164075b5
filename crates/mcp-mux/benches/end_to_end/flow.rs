//! What the flow guard costs a caller of several tenants: to keep prints of an answer, and to look arguments up. It takes no round trip,
//! so it is measured in one process, after calls that are like others.

use std::hint::black_box;
use std::time::Duration;

use anyhow::Result;
use mcp_mux::caller::Principal;
use mcp_mux::flow::FlowGuard;
use serde_json::json;
use tenant_store::{TenantId, Timestamp};
use tokio::time::Instant;

use super::measure::median;

/// What is measured, and how long one takes, in microseconds.
pub(crate) type Costs = Vec<(&'static str, f64)>;

/// Text of about that many bytes, another for each seed.
fn text(seed: usize, bytes: usize) -> String {
    let words = [
        "order",
        "of",
        "the",
        "Northwind Traders",
        "was",
        "delivered",
        "to",
        "Ines Albrecht",
        "in",
        "Hamburg",
        "and",
        "paid",
    ];
    let numbered = (seed..).map(|number| {
        if number % 9 == 0 { format!("BW-{}", 10_000 + number) } else { words[number * 7 % words.len()].to_owned() }
    });
    let mut text = String::new();
    for word in numbered.take_while({
        let mut length = 0;
        move |word| {
            length += word.len() + 1;
            length < bytes
        }
    }) {
        text += &word;
        text += " ";
    }
    text
}

fn each(rounds: usize, mut work: impl FnMut(usize)) -> f64 {
    let took = (0..rounds).map(|round| {
        let began = Instant::now();
        work(round);
        began.elapsed()
    });
    median(took.map(|took: Duration| took.as_secs_f64() * 1e6))
}

/// Measures that often.
pub(crate) fn costs(rounds: usize) -> Result<Costs> {
    let reader = Principal { issuer: "corp".parse()?, subject: "somebody".parse()? };
    let tenant = || TenantId::new(Timestamp::from_millis(1));
    let (acme, globex) = (tenant(), tenant());
    let guard = FlowGuard::new();
    let answer =
        |round, bytes| json!({ "content": [{ "type": "text", "text": text(round * 1_000, bytes) }] }).to_string();
    let arguments = |round, bytes| json!({ "note": text(round * 1_000 + 7_000_000, bytes) }).to_string();
    let small: Vec<String> = (0..rounds).map(|round| answer(round, 256)).collect();
    let large: Vec<String> = (0..rounds).map(|round| answer(round, 64 * 1_024)).collect();
    let said: Vec<String> = (0..rounds).map(|round| arguments(round, 256)).collect();
    let much: Vec<String> = (0..rounds).map(|round| arguments(round, 64 * 1_024)).collect();
    let read = |answers: &[String]| {
        each(rounds, |round| guard.read(&reader, acme, black_box(&answers[round]), Instant::now()))
    };
    let find = |said: &[String]| {
        each(rounds, |round| {
            drop(black_box(guard.find(&reader, globex, (black_box(&said[round]), ""), Instant::now())))
        })
    };
    Ok(vec![
        ("an answer of 256 B leaves its prints", read(&small)),
        ("an answer of 64 KiB leaves its prints", read(&large)),
        ("arguments of 256 B are looked up", find(&said)),
        ("arguments of 64 KiB are looked up", find(&much)),
    ])
}
