//! One change of an input, of the kinds that break parsers: bits, lengths that lie, numbers beyond all bounds, brackets
//! without end, pieces cut out, doubled, or taken from another input.

use fastrand::Rng;

/// Numbers next to where something overflows. Written in 1, 2, 4 or 8 bytes, both ways round.
const NUMBERS: [u64; 18] = [
    0,
    1,
    2,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0x8000,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];

/// The same in digits, as text formats have them; the last two are the largest of a tar header.
const DIGITS: [&str; 14] = [
    "0",
    "-1",
    "00",
    "1.5",
    "-0",
    "1e999",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "77777777777",
    "7777777",
];

/// What ends, opens or means something else than it seems to in one of the formats.
const WORDS: [&[u8]; 26] = [
    b"..",
    b"/",
    b"\\",
    b"\0",
    b"\n",
    b"\r\n",
    b"\"",
    b"'",
    b"{}",
    b"[]",
    b"null",
    b"true",
    b"{",
    b"}",
    b"]",
    b":",
    b",",
    b"%2e%2e",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    "\u{202e}".as_bytes(),
    b"&a",
    b"*a",
    b"---\n",
    b"!!binary ",
    b"\\ud800",
];

/// How deep, how long: beyond what a stack or a name holds, and short of what only costs time.
const DEPTHS: [usize; 4] = [20, 130, 1100, 20_000];
const LENGTHS: [usize; 4] = [64, 256, 5000, 40_000];
/// What nests in one of the formats: JSON, YAML, MessagePack and CBOR-like ones.
const OPENERS: [&[u8]; 7] = [b"[", b"{\"a\":", b"- ", b"{a: ", b"\x91", b"\x81\xa1a", b"\xc1\x01"];

/// Changes `input` once; `other` is another input of the same parser.
pub fn mutate(input: &mut Vec<u8>, other: &[u8], random: &mut Rng) {
    match random.u8(..14) {
        0 | 1 => flip(input, random),
        2 => number(input, random),
        3 => digits(input, random),
        4 => {
            let length = random.usize(..=input.len());
            input.truncate(length);
        }
        5 => {
            let piece = piece(input, random);
            input.drain(piece);
        }
        6 => {
            let piece = input[piece(input, random)].to_vec();
            let times = 1 + [0, 0, 1, 30][random.usize(..4)];
            insert(input, &piece.repeat(times), random);
        }
        7 => insert(input, WORDS[random.usize(..WORDS.len())], random),
        8 => {
            let mut noise = vec![0; random.usize(1..16)];
            random.fill(&mut noise);
            insert(input, &noise, random);
        }
        9 => nest(input, random),
        10 => {
            let long = vec![*pick(b"a0 \0\xff\x7f", random); LENGTHS[random.usize(..LENGTHS.len())]];
            insert(input, &long, random);
        }
        11 => {
            // The beginning of this one, the end of the other.
            input.truncate(random.usize(..=input.len()));
            input.extend_from_slice(&other[random.usize(..=other.len())..]);
        }
        12 => {
            let from = piece(other, random);
            insert(input, &other[from], random);
        }
        _ => {
            let (from, to) = (piece(input, random), random.usize(..=input.len()));
            let moved: Vec<u8> = input.drain(from).collect();
            let at = to.min(input.len());
            input.splice(at..at, moved);
        }
    }
}

fn pick<'a>(from: &'a [u8], random: &mut Rng) -> &'a u8 {
    &from[random.usize(..from.len())]
}

/// A place and some length, mostly short.
fn piece(of: &[u8], random: &mut Rng) -> std::ops::Range<usize> {
    let from = random.usize(..=of.len());
    let most = (of.len() - from).min([4, 32, 512, usize::MAX][random.usize(..4)]);
    from..from + random.usize(..=most)
}

fn insert(input: &mut Vec<u8>, bytes: &[u8], random: &mut Rng) {
    let at = random.usize(..=input.len());
    // Over what was there, or between.
    let end = if random.bool() { (at + bytes.len()).min(input.len()) } else { at };
    input.splice(at..end, bytes.iter().copied());
}

fn flip(input: &mut [u8], random: &mut Rng) {
    if input.is_empty() {
        return;
    }
    let at = random.usize(..input.len());
    input[at] = if random.bool() { input[at] ^ (1 << random.u8(..8)) } else { random.u8(..) };
}

/// A number in binary, larger or smaller than it should be: most of all the lengths.
fn number(input: &mut [u8], random: &mut Rng) {
    let width = [1, 2, 4, 8][random.usize(..4)].min(input.len());
    let at = random.usize(..=input.len() - width);
    let lie = match random.u8(..3) {
        0 => (input.len() as u64 + random.u64(..3)).wrapping_sub(1),
        _ => NUMBERS[random.usize(..NUMBERS.len())],
    };
    let bytes = if random.bool() { lie.to_le_bytes() } else { (lie << (64 - 8 * width.max(1))).to_be_bytes() };
    input[at..at + width].copy_from_slice(&bytes[..width]);
}

/// A number in digits: one that is there is replaced by one that is too much.
fn digits(input: &mut Vec<u8>, random: &mut Rng) {
    let from = random.usize(..=input.len());
    let Some(begin) = input[from..].iter().position(u8::is_ascii_digit).map(|n| from + n) else { return };
    let end = input[begin..].iter().position(|b| !b.is_ascii_digit()).map_or(input.len(), |n| begin + n);
    let new = DIGITS[random.usize(..DIGITS.len())].as_bytes();
    if random.bool() && new.len() <= end - begin {
        // In a field of a fixed width.
        input[begin..begin + new.len()].copy_from_slice(new);
    } else {
        input.splice(begin..end, new.iter().copied());
    }
}

fn nest(input: &mut Vec<u8>, random: &mut Rng) {
    let opener = OPENERS[random.usize(..OPENERS.len())];
    let depth = DEPTHS[random.usize(..DEPTHS.len())];
    let mut nested = opener.repeat(depth);
    if random.bool() {
        nested.extend_from_slice(b"1");
        let closer = if opener.contains(&b'{') { b'}' } else { b']' };
        nested.extend(std::iter::repeat_n(closer, depth));
    }
    insert(input, &nested, random);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_input_can_be_changed_also_an_empty_one() {
        let mut random = Rng::with_seed(7);
        for seed in [&b""[..], b"x", b"{\"size\": 12}", &[0; 600]] {
            for _ in 0..2000 {
                let mut input = seed.to_vec();
                mutate(&mut input, seed, &mut random);
            }
        }
    }

    #[test]
    fn from_one_sample_come_inputs_that_lie_about_numbers_nest_and_are_cut() {
        let mut random = Rng::with_seed(7);
        let seen: Vec<Vec<u8>> = std::iter::repeat_with(|| {
            let mut input = b"{\"size\": 12}".to_vec();
            mutate(&mut input, b"{}", &mut random);
            input
        })
        .take(2000)
        .collect();
        let any = |what: &dyn Fn(&[u8]) -> bool| seen.iter().any(|input| what(input));
        assert!(any(&|i| i == b"{\"size\": 18446744073709551616}"));
        assert!(any(&|i| i.windows(1100).any(|w| w.iter().all(|b| *b == b'['))));
        assert!(any(&|i| i == b"{\"size\""));
    }
}
