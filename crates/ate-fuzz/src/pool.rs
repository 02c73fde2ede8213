//! The inputs of a run that others are made from: those that gave answers of different kinds.

use std::collections::HashSet;

use crate::mutate::mutate;

/// Inputs kept in a run. Answers that quote their input would fill the memory otherwise.
const MAX_INPUTS: usize = 2048;
const MAX_GOOD: usize = 64;
/// Bytes of one input that others may be made from.
const MAX_LENGTH: usize = 64 << 10;
/// Of an answer that tell its kind.
const WORDS: usize = 48;

#[derive(Default)]
pub(crate) struct Pool {
    /// What was kept, and what was accepted: others are made from these half of the time, or all would soon be noise.
    good: Vec<Vec<u8>>,
    inputs: Vec<Vec<u8>>,
    seen: HashSet<String>,
}

impl Pool {
    pub(crate) fn add(&mut self, input: &[u8], answer: &Result<(), String>) {
        let new = self.seen.len() < MAX_INPUTS && self.seen.insert(kind(answer));
        if new && input.len() <= MAX_LENGTH {
            self.inputs.push(input.to_vec());
        }
        if answer.is_ok() && self.good.len() < MAX_GOOD && input.len() <= MAX_LENGTH {
            self.good.push(input.to_vec());
        }
    }

    /// What was kept is always built upon.
    pub(crate) fn keep(&mut self, input: &[u8]) {
        self.good.push(input.to_vec());
    }

    /// A new one.
    pub(crate) fn input(&self, random: &mut fastrand::Rng) -> Vec<u8> {
        let any = |random: &mut fastrand::Rng| {
            let from = if random.bool() || self.inputs.is_empty() { &self.good } else { &self.inputs };
            &from[random.usize(..from.len())]
        };
        let mut input = any(random).clone();
        // Mostly one change, which keeps the rest good; sometimes many.
        let changes = 1 + [0, 0, 0, 1, 2, 6][random.usize(..6)];
        for _ in 0..changes {
            mutate(&mut input, any(random), random);
        }
        input.truncate(2 * MAX_LENGTH);
        input
    }

    pub(crate) fn kinds(&self) -> usize {
        self.seen.len()
    }
}

/// The answer without what only tells the input: numbers, and what is quoted.
fn kind(answer: &Result<(), String>) -> String {
    let Err(words) = answer else { return String::new() };
    let mut quoted = false;
    let plain = words.chars().filter(|c| {
        quoted ^= matches!(c, '"' | '`');
        !quoted && (c.is_ascii_alphabetic() || *c == ' ')
    });
    plain.take(WORDS).collect::<String>() + "!"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_a_new_kind_is_kept_and_one_with_other_numbers_is_not() {
        let mut pool = Pool::default();
        let mut add = |answer: Result<(), &str>| {
            pool.add(b"x", &answer.map_err(str::to_owned));
            pool.inputs.len()
        };
        assert_eq!(add(Ok(())), 1);
        assert_eq!(add(Err("17 bytes are too many")), 2);
        assert_eq!(add(Err("18 bytes are too many")), 2);
        assert_eq!(add(Err("unknown kind \"a\"")), 3);
        assert_eq!(add(Err("unknown kind \"b\"")), 3);
        assert_eq!(add(Ok(())), 3);
    }
}
