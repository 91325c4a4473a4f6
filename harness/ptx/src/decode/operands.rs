//! The operands of an instruction, and how files of opcodes take them.

use super::{Refusal, Type, types::Kind};
use crate::program::{Address, Alu, Lanes, Op, SPECIAL, Slot, Space, WARP};
use std::collections::HashMap;

/// An operand as it is written, with its names resolved.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Operand {
    Register {
        slot: Slot,
        ty: Type,
    },
    /// `!%p`
    Not(Slot),
    /// An integer.
    Integer(u64),
    /// `0f...`, `0d...` or a decimal number.
    Float(f64),
    /// A variable's address in its space.
    Symbol {
        space: Space,
        offset: u64,
    },
    /// The `.extern .shared` arrays, whose place is known at launch.
    Dynamic,
    /// `_`
    Sink,
    Vector(Vec<Operand>),
    /// `[base + offset]`
    Memory(Box<Operand>, u64),
    /// `%r|%p`
    Pair(Box<Operand>, Box<Operand>),
    /// A label or a function.
    Name(String),
    /// `(a, b)` of a call.
    List(Vec<Operand>),
}

/// The constants that instructions use, each once.
#[derive(Default)]
pub(crate) struct Registry {
    pub constants: Vec<Lanes>,
    places: HashMap<u64, usize>,
}

impl Registry {
    pub fn constant(&mut self, value: u64) -> Slot {
        let index = *self.places.entry(value).or_insert_with(|| {
            self.constants.push([value; WARP]);
            self.constants.len() - 1
        });
        Slot::new(Slot::CONSTANT, index)
    }
}

/// The register that holds where dynamic shared memory starts.
const DYNAMIC_START: Slot = Slot(SPECIAL.len() as u32 - 1);

/// What is left of an instruction's operands.
pub(crate) struct Operands<'a> {
    pub list: std::collections::VecDeque<Operand>,
    pub registry: &'a mut Registry,
}

impl Operands<'_> {
    pub fn next(&mut self) -> Result<Operand, Refusal> {
        self.list.pop_front().ok_or_else(|| "too few operands".into())
    }

    pub fn more(&self) -> bool {
        !self.list.is_empty()
    }

    pub fn finish(&self) -> Result<(), Refusal> {
        if self.more() { Err("too many operands".into()) } else { Ok(()) }
    }

    /// The register that receives a result of type `ty`.
    pub fn result(&mut self, ty: Type) -> Result<Slot, Refusal> {
        let operand = self.next()?;
        Self::register(&operand, |bits| bits == ty.bits())
    }

    /// As [`Operands::result`]; a sink is no register.
    pub fn optional_result(&mut self, ty: Type) -> Result<Option<Slot>, Refusal> {
        if self.list.front() == Some(&Operand::Sink) {
            self.list.pop_front();
            return Ok(None);
        }
        self.result(ty).map(Some)
    }

    /// `d` or `d|p`, as shuffles and comparisons write them.
    pub fn result_pair(&mut self, ty: Type) -> Result<(Option<Slot>, Option<Slot>), Refusal> {
        match self.next()? {
            Operand::Pair(a, b) => {
                let place = |o: Operand, ty: Type| match o {
                    Operand::Sink => Ok(None),
                    o => Self::register(&o, |bits| bits == ty.bits()).map(Some),
                };
                Ok((place(*a, ty)?, place(*b, Type::PREDICATE)?))
            }
            Operand::Sink => Ok((None, None)),
            o => Ok((Some(Self::register(&o, |bits| bits == ty.bits())?), None)),
        }
    }

    fn register(operand: &Operand, fits: impl Fn(u32) -> bool) -> Result<Slot, Refusal> {
        match operand {
            Operand::Register { slot, ty } if fits(ty.bits()) => Ok(*slot),
            Operand::Register { ty, .. } => Err(format!("a register of {} bits does not fit", ty.bits())),
            other => Err(format!("expected a register, found {other:?}")),
        }
    }

    /// A value of type `ty`.
    pub fn source(&mut self, ty: Type) -> Result<Slot, Refusal> {
        let operand = self.next()?;
        self.value(operand, ty)
    }

    pub fn value(&mut self, operand: Operand, ty: Type) -> Result<Slot, Refusal> {
        let bits = match operand {
            Operand::Integer(value) if ty.kind == Kind::Predicate => (value != 0).into(),
            Operand::Integer(value) if !ty.is_float() => super::types::low(value, ty.bits()),
            Operand::Float(value) => match ty.kind {
                // `mov.b32 %r, 0f...` carries the bits of an f32.
                Kind::Bits if ty.bits() == 32 => (value as f32).to_bits().into(),
                Kind::Bits if ty.bits() == 64 => value.to_bits(),
                Kind::Float(format) if ty.count == 1 => format.round(value, crate::number::Mode::Nearest),
                _ => return Err("a floating-point literal does not fit".into()),
            },
            // Bits of a half type, as a hexadecimal integer.
            Operand::Integer(value) if ty.element == 16 => super::types::low(value, ty.bits()),
            Operand::Symbol { offset, .. } if ty.bits() >= 32 => offset,
            Operand::Dynamic if ty.bits() >= 32 => return Ok(DYNAMIC_START),
            ref o @ Operand::Register { .. } => return Self::register(o, |bits| bits == ty.bits()),
            other => return Err(format!("{other:?} is no value of this type")),
        };
        Ok(self.registry.constant(bits))
    }

    /// A value and the width of its register, which may be wider than the type; constants take the type's width.
    pub fn wide_source(&mut self, ty: Type) -> Result<Slot, Refusal> {
        match self.next()? {
            ref o @ Operand::Register { .. } => Self::register(o, |bits| bits >= ty.bits()),
            o => self.value(o, ty),
        }
    }

    /// A register that may be wider than `ty`, and its width.
    pub fn wide_result(&mut self, ty: Type) -> Result<(Slot, u32), Refusal> {
        match self.next()? {
            Operand::Register { slot, ty: own } if own.bits() >= ty.bits() => Ok((slot, own.bits())),
            other => Err(format!("{other:?} cannot receive this result")),
        }
    }

    /// Registers in braces, or a single one.
    pub fn elements(&mut self) -> Result<Vec<Operand>, Refusal> {
        Ok(match self.next()? {
            Operand::Vector(list) => list,
            other => vec![other],
        })
    }

    /// `[base + offset]` in `space`. A variable's own space wins over the generic one.
    pub fn address(&mut self, space: Space) -> Result<Address, Refusal> {
        let Operand::Memory(base, offset) = self.next()? else { return Err("expected an address in brackets".into()) };
        self.address_of(*base, offset, space)
    }

    pub fn address_of(&mut self, base: Operand, offset: u64, space: Space) -> Result<Address, Refusal> {
        let (space, base) = match base {
            Operand::Symbol { space: own, offset } => {
                let own = if own == Space::Shared && space == Space::Cluster { space } else { own };
                // Parameters of device functions and of calls are the thread's own memory.
                let fits = own == space || space == Space::Generic || (space, own) == (Space::Param, Space::Local);
                if !fits {
                    return Err(format!("the variable is in {own:?} memory, not in {space:?}"));
                }
                (own, self.registry.constant(offset))
            }
            Operand::Dynamic if matches!(space, Space::Shared | Space::Cluster | Space::Generic) => {
                (if space == Space::Cluster { space } else { Space::Shared }, DYNAMIC_START)
            }
            Operand::Register { slot, ty } if ty.bits() >= 32 => (space, slot),
            Operand::Integer(value) => (space, self.registry.constant(value)),
            other => return Err(format!("{other:?} is no address")),
        };
        Ok(Address { space, base, offset })
    }

    /// An operation of `n` operands of one type on the lanes.
    pub fn alu(&mut self, n: usize, ty: Type, run: Alu) -> Result<Op, Refusal> {
        let result = self.result(ty)?;
        self.alu_into(n, ty, result, run)
    }

    /// As [`Operands::alu`], with the result's register taken already.
    pub fn alu_into(&mut self, n: usize, ty: Type, result: Slot, run: Alu) -> Result<Op, Refusal> {
        let mut operands = [self.registry.constant(0); 3];
        for operand in operands.iter_mut().take(n) {
            *operand = self.source(ty)?;
        }
        Ok(Op::Alu { run, result, second: None, operands })
    }
}
