// SPDX-License-Identifier: Apache-2.0
//! Makes a filter smaller without changing its decisions.
//!
//! The kernel checks, translates and compiles a filter whenever a process installs one, which is a
//! quarter of what an exec costs: every instruction counts. libseccomp decides call by call; here runs of
//! numbers that are decided alike become one range, found by bisection. The library stays the authority:
//! its program is worked through once for every range of numbers between which it makes a difference, and
//! what it would look at besides (arguments) is kept as it is.
//!
//! A program with an unknown instruction is left as it is.

use std::collections::{BTreeSet, HashMap};

/// `struct sock_filter`: 16 bits of code, 8 and 8 of jumps, 32 of operand.
const INSTRUCTION_BYTES: usize = 8;
/// Where the number of the call lies in `struct seccomp_data`, in bytes.
const NUMBER: u32 = 0;
/// Where the architecture lies there.
const ARCH: u32 = 4;
/// Most that one range's decision may take, in nodes: more than any profile needs.
const NODES_MAX: usize = 4096;
/// How far a conditional jump may be from where it goes, with room for a jump in between.
const REACH: usize = 250;
/// How near a decision must be to be used once more: what is put next shall reach it still.
const NEAR: usize = 200;

// linux/filter.h, linux/bpf_common.h.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const GO: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_GREATER: u16 = 0x25;
const IF_AT_LEAST: u16 = 0x35;
const IF_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

#[derive(Debug, Clone, Copy)]
struct Instruction {
    code: u16,
    yes: u8,
    no: u8,
    operand: u32,
}

/// An equivalent filter with fewer instructions; `None` if none was found.
pub(super) fn optimize(program: &[u8]) -> Option<Vec<u8>> {
    rewritten(program).filter(|made| made.len() < program.len())
}

fn rewritten(program: &[u8]) -> Option<Vec<u8>> {
    let program = Program::parse(program)?;
    let seen = program.compared()?;
    let mut all = of_arch(&program, seen.other_arch(), &seen.numbers)?;
    for arch in &seen.archs {
        let this = of_arch(&program, *arch, &seen.numbers)?;
        all = Decision::test(IF_EQUAL, *arch, this, all);
    }
    let all = Decision::Load(ARCH, Box::new(all));
    let mut made = Emitted::default();
    made.put(&all);
    Some(made.backwards.iter().rev().flat_map(Instruction::bytes).collect())
}

/// The decision about all calls of one architecture.
fn of_arch(program: &Program, arch: u32, numbers: &BTreeSet<u32>) -> Option<Decision> {
    let mut ranges: Vec<(u32, Decision)> = Vec::new();
    for first in numbers {
        let call = Call { arch, number: *first };
        let decision = program.decision(0, Held::Nothing, call, &mut NODES_MAX.clone())?;
        if ranges.last().is_none_or(|(_, last)| *last != decision) {
            ranges.push((*first, decision));
        }
    }
    let one = ranges.len() == 1;
    let found = bisect(ranges)?;
    Some(if one { found } else { Decision::Load(NUMBER, Box::new(found)) })
}

/// Finds the range by its first number, with the number loaded.
fn bisect(mut ranges: Vec<(u32, Decision)>) -> Option<Decision> {
    if ranges.len() < 2 {
        return ranges.pop().map(|(_, only)| only);
    }
    let above = ranges.split_off(ranges.len() / 2);
    let first = above.first()?.0;
    Some(Decision::test(IF_AT_LEAST, first, bisect(above)?, bisect(ranges)?))
}

/// A program as it grows, from its end to its beginning: jumps only go forward, so where they go to
/// is known by then. Decisions that were put already are put again only where no jump reaches them.
#[derive(Debug, Default)]
struct Emitted<'a> {
    backwards: Vec<Instruction>,
    /// Where a decision is, counted from the end.
    known: HashMap<&'a Decision, usize>,
}

impl<'a> Emitted<'a> {
    /// Puts a decision before all else, or finds it; where it is, counted from the end.
    fn put(&mut self, decision: &'a Decision) -> usize {
        if let Some(at) = self.known.get(decision)
            && self.backwards.len() - at < NEAR
        {
            return *at;
        }
        let at = match decision {
            Decision::Return(action) => self.push(instruction(RETURN, *action)),
            Decision::Load(word, rest) => self.push_before(rest, instruction(LOAD, *word)),
            Decision::And(mask, rest) => self.push_before(rest, instruction(AND, *mask)),
            Decision::Test { code, operand, yes, no } => {
                let (yes, no) = (self.put(yes), self.put(no));
                let (yes, no) = (self.within_reach(yes), self.within_reach(no));
                // The second one may have moved the first one on by an instruction: hence one less.
                let over = |to| u8::try_from(self.backwards.len() - 1 - to).unwrap_or(u8::MAX);
                let (yes, no) = (over(yes), over(no));
                self.push(Instruction { code: *code, yes, no, operand: *operand })
            }
        };
        self.known.insert(decision, at);
        at
    }

    fn push(&mut self, one: Instruction) -> usize {
        self.backwards.push(one);
        self.backwards.len() - 1
    }

    /// An instruction after which `rest` is what happens.
    fn push_before(&mut self, rest: &'a Decision, one: Instruction) -> usize {
        let to = self.put(rest);
        if to + 1 != self.backwards.len() {
            self.go(to);
        }
        self.push(one)
    }

    /// A plain jump reaches anything, a conditional one 255 instructions.
    fn within_reach(&mut self, to: usize) -> usize {
        if self.backwards.len() - to > REACH { self.go(to) } else { to }
    }

    fn go(&mut self, to: usize) -> usize {
        let over = u32::try_from(self.backwards.len() - 1 - to).unwrap_or(u32::MAX);
        self.push(instruction(GO, over))
    }
}

fn instruction(code: u16, operand: u32) -> Instruction {
    Instruction { code, yes: 0, no: 0, operand }
}

impl Instruction {
    fn parse(bytes: &[u8; INSTRUCTION_BYTES]) -> Self {
        let [c0, c1, yes, no, k0, k1, k2, k3] = *bytes;
        let operand = u32::from_ne_bytes([k0, k1, k2, k3]);
        Self { code: u16::from_ne_bytes([c0, c1]), yes, no, operand }
    }

    fn bytes(&self) -> [u8; INSTRUCTION_BYTES] {
        let ([c0, c1], [k0, k1, k2, k3]) = (self.code.to_ne_bytes(), self.operand.to_ne_bytes());
        [c0, c1, self.yes, self.no, k0, k1, k2, k3]
    }

    /// Whether a conditional jump is taken; `None` for any other instruction.
    fn test(&self, value: u32) -> Option<bool> {
        Some(match self.code {
            IF_EQUAL => value == self.operand,
            IF_GREATER => value > self.operand,
            IF_AT_LEAST => value >= self.operand,
            IF_ANY_BIT => value & self.operand != 0,
            _ => return None,
        })
    }

    fn way(&self, at: usize, taken: bool) -> usize {
        at + 1 + usize::from(if taken { self.yes } else { self.no })
    }
}

/// The content of the accumulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Held {
    Nothing,
    Number,
    Arch,
    /// A word of the arguments or of the program's place, by its offset.
    Word(u32),
    /// Something made of such a word.
    Made,
}

impl Held {
    fn after_load(at: u32) -> Self {
        match at {
            NUMBER => Self::Number,
            ARCH => Self::Arch,
            other => Self::Word(other),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Call {
    arch: u32,
    number: u32,
}

/// The decision about a call, with all known conditions evaluated.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Decision {
    Return(u32),
    Load(u32, Box<Decision>),
    And(u32, Box<Decision>),
    Test { code: u16, operand: u32, yes: Box<Decision>, no: Box<Decision> },
}

impl Decision {
    fn test(code: u16, operand: u32, yes: Self, no: Self) -> Self {
        Self::Test { code, operand, yes: Box::new(yes), no: Box::new(no) }
    }
}

/// The constants with which a program compares: between two of them it cannot distinguish calls.
#[derive(Debug)]
struct Compared {
    archs: BTreeSet<u32>,
    /// First numbers of the ranges.
    numbers: BTreeSet<u32>,
}

impl Compared {
    fn other_arch(&self) -> u32 {
        (0..=u32::MAX).find(|arch| !self.archs.contains(arch)).unwrap_or(0)
    }
}

struct Program(Vec<Instruction>);

impl Program {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (chunks, rest) = bytes.as_chunks::<INSTRUCTION_BYTES>();
        rest.is_empty().then(|| Self(chunks.iter().map(Instruction::parse).collect()))
    }

    /// Everything that is compared with the number or the architecture on any way through. Jumps only
    /// go forward, so every way ends.
    fn compared(&self) -> Option<Compared> {
        let mut seen = Compared { archs: BTreeSet::new(), numbers: BTreeSet::from([0]) };
        let mut known = BTreeSet::new();
        let mut ways = vec![(0, Held::Nothing)];
        while let Some((at, held)) = ways.pop() {
            if !known.insert((at, held)) {
                continue;
            }
            let now = *self.0.get(at)?;
            match (now.code, held) {
                (RETURN, _) => continue,
                (LOAD, _) => ways.push((at + 1, Held::after_load(now.operand))),
                (GO, _) => {
                    ways.push((at.checked_add(usize::try_from(now.operand).ok()?)? + 1, held))
                }
                (AND, Held::Word(_) | Held::Made) => ways.push((at + 1, Held::Made)),
                (IF_EQUAL, Held::Arch) => drop(seen.archs.insert(now.operand)),
                (IF_EQUAL | IF_GREATER | IF_AT_LEAST, Held::Number) => {
                    seen.numbers.insert(now.operand);
                    seen.numbers.extend(now.operand.checked_add(1));
                }
                (IF_EQUAL | IF_GREATER | IF_AT_LEAST | IF_ANY_BIT, Held::Word(_) | Held::Made) => {}
                _ => return None,
            }
            if now.test(0).is_some() {
                ways.extend([true, false].map(|taken| (now.way(at, taken), held)));
            }
        }
        Some(seen)
    }

    fn decision(
        &self,
        mut at: usize,
        mut held: Held,
        call: Call,
        left: &mut usize,
    ) -> Option<Decision> {
        loop {
            *left = left.checked_sub(1)?;
            let now = *self.0.get(at)?;
            let known = match held {
                Held::Number => Some(call.number),
                Held::Arch => Some(call.arch),
                Held::Nothing | Held::Word(_) | Held::Made => None,
            };
            match (now.code, known) {
                (RETURN, _) => return Some(Decision::Return(now.operand)),
                (GO, _) => at += usize::try_from(now.operand).ok()?,
                (LOAD, _) => {
                    let (before, word) = (held, now.operand);
                    held = Held::after_load(word);
                    if matches!(held, Held::Word(_)) && held != before {
                        let rest = self.decision(at + 1, held, call, left)?;
                        return Some(Decision::Load(word, Box::new(rest)));
                    }
                }
                (AND, None) => {
                    let rest = self.decision(at + 1, Held::Made, call, left)?;
                    return Some(Decision::And(now.operand, Box::new(rest)));
                }
                (_, Some(value)) => at = now.way(at, now.test(value)?) - 1,
                (code, None) => {
                    now.test(0)?;
                    let mut way = |taken| self.decision(now.way(at, taken), held, call, left);
                    let (yes, no) = (way(true)?, way(false)?);
                    return Some(if yes == no {
                        yes
                    } else {
                        Decision::test(code, now.operand, yes, no)
                    });
                }
            }
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests;
