//! Requests become changes of the model, after the delays and with the faults of the moment, and as long as there is power.

use crate::lossy::content::Order;
use crate::lossy::faults::{Action, Faults};
use crate::lossy::model::{Inode, Model};
use crate::lossy::protocol::{self, Ask, Request};
use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Whether requests are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// They are.
    On,
    /// Nothing more changes, and nobody gets an answer: who asks has no power either.
    Off,
    /// Nothing more changes, and whoever waits gets an error: it is dead already and must be let go.
    Dead,
}

/// What all threads of one file system share.
#[derive(Debug)]
pub struct Served {
    state: Mutex<State>,
    changed: Condvar,
}

/// The file system and what is wrong with it.
#[derive(Debug)]
pub struct State {
    /// Its files.
    pub model: Model,
    /// What goes wrong.
    pub faults: Faults,
    /// Whether it has power.
    pub power: Power,
    /// The change after which the power goes by itself.
    pub last_change: Option<Order>,
    /// Requests whose askers got a signal: a slow one is broken off, so that who was killed can die.
    interrupted: BTreeSet<u64>,
    /// How many actions failed by order of the test.
    pub refused: u64,
}

impl State {
    /// A file's path, where somebody wants to know it.
    fn path(&self, inode: Inode) -> String {
        if self.faults == Faults::none() {
            return String::new();
        }
        let mut files = self.model.files().into_iter();
        let found = files.find(|(_, file)| *file == inode);
        found.map(|(path, _)| path).unwrap_or_default()
    }
}

/// Which request, about which file or folder.
#[derive(Clone, Copy)]
struct Asked {
    unique: u64,
    inode: Inode,
}

type Answer = Result<Vec<u8>, Errno>;

impl Served {
    /// A file system that does nothing wrong yet.
    #[must_use]
    pub fn new(model: Model) -> Served {
        Served {
            state: Mutex::new(State {
                model,
                faults: Faults::none(),
                power: Power::On,
                last_change: None,
                interrupted: BTreeSet::new(),
                refused: 0,
            }),
            changed: Condvar::new(),
        }
    }

    /// To look at it or change it.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on.
    pub fn set_power(&self, power: Power) {
        self.state().power = power;
        self.changed.notify_all();
    }

    /// From now on, for what waits too.
    pub fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
        self.changed.notify_all();
    }

    /// Does what is asked; the answer's bytes, none where no answer is wanted.
    pub fn serve(&self, request: Request) -> Option<Vec<u8>> {
        let Request { unique, inode, ask } = request;
        match ask {
            Ask::Nothing => None,
            Ask::Interrupt(unique) => {
                self.state().interrupted.insert(unique);
                self.changed.notify_all();
                None
            }
            ask => {
                let result = self.act(Asked { unique, inode }, ask);
                self.state().interrupted.remove(&unique);
                Some(protocol::answer(unique, &result))
            }
        }
    }

    fn act(&self, asked: Asked, ask: Ask) -> Answer {
        let inode = asked.inode;
        match ask {
            Ask::Read { offset, length } => {
                let state = self.begin(asked, Action::Read)?;
                state.model.read(inode, offset, length)
            }
            Ask::Write {
                offset,
                flags,
                data,
            } => self.write(asked, offset, &data, synced(flags)),
            Ask::Sync { flags } => {
                let until = self.state().model.order();
                let mut state = self.begin(asked, Action::Sync)?;
                // What went through this handle is durable already, and it need not speak for others.
                if !synced(flags) {
                    state.model.sync(inode, until)?;
                }
                Ok(Vec::new())
            }
            Ask::SyncFolder => {
                let until = self.state().model.order();
                let mut state = self.begin(asked, Action::Sync)?;
                state.model.sync(inode, until)?;
                Ok(Vec::new())
            }
            Ask::Allocate {
                offset,
                length,
                mode,
            } => self.allocate(asked, offset, length, mode),
            Ask::SetLength(length) => {
                let mut state = self.begin(asked, Action::Write)?;
                if let Some(length) = length {
                    state.model.set_length(inode, length)?;
                }
                Ok(protocol::facts(&state.model.facts(inode)?))
            }
            Ask::MakeFile(name, flags) => {
                let mut state = self.begin(asked, Action::Name)?;
                let made = state.model.make(inode, &name, false)?;
                let mut body = protocol::entry(&state.model.facts(made)?);
                body.extend(protocol::opened(flags, false));
                Ok(body)
            }
            Ask::MakeFolder(name) => {
                let mut state = self.begin(asked, Action::Name)?;
                let made = state.model.make(inode, &name, true)?;
                Ok(protocol::entry(&state.model.facts(made)?))
            }
            Ask::Remove(name) => {
                self.change_names(asked, |model| model.remove(inode, &name, false))
            }
            Ask::RemoveFolder(name) => {
                self.change_names(asked, |model| model.remove(inode, &name, true))
            }
            Ask::Rename(from, folder, to) => {
                self.change_names(asked, |model| model.rename((inode, &from), (folder, &to)))
            }
            other => self.look(inode, other),
        }
    }

    /// What changes nothing.
    fn look(&self, inode: Inode, ask: Ask) -> Answer {
        let state = self.powered(self.state())?;
        match ask {
            Ask::Begin { flags } => Ok(protocol::agreement(flags)),
            Ask::LookUp(name) => {
                let found = state.model.look_up(inode, &name)?;
                Ok(protocol::entry(&state.model.facts(found)?))
            }
            Ask::Facts => Ok(protocol::facts(&state.model.facts(inode)?)),
            Ask::Open(flags) => {
                let writes = flags & (OFlags::WRONLY | OFlags::RDWR).bits() != 0;
                if writes && state.faults.read_only {
                    return Err(Errno::ROFS);
                }
                Ok(protocol::opened(flags, false))
            }
            Ask::OpenFolder => Ok(protocol::opened(0, true)),
            Ask::Names { from, length } => {
                let mut entries = Vec::new();
                for (name, inner) in state.model.names(inode)? {
                    entries.push((name, inner, state.model.facts(inner)?.folder));
                }
                Ok(protocol::names(&entries, from, length))
            }
            Ask::Space => Ok(protocol::space(state.model.space())),
            Ask::Close => Ok(Vec::new()),
            _ => Err(Errno::NOSYS),
        }
    }

    fn write(&self, asked: Asked, offset: u64, data: &[u8], durable: bool) -> Answer {
        let mut state = self.begin(asked, Action::Write)?;
        let order = state.model.write(asked.inode, offset, data)?;
        if durable {
            // Until the device says so a cut finds any part of it.
            drop(state);
            let mut state = self.begin(asked, Action::Sync)?;
            state
                .model
                .sync_range(asked.inode, &(offset..offset + data.len() as u64), order)?;
        }
        Ok(protocol::written(data.len() as u32))
    }

    fn allocate(&self, asked: Asked, offset: u64, length: u64, mode: u32) -> Answer {
        let mut state = self.begin(asked, Action::Write)?;
        let range = offset..offset + length;
        let mode = FallocateFlags::from_bits_retain(mode);
        if mode.is_empty() || mode == FallocateFlags::KEEP_SIZE {
            state.model.allocate(asked.inode, &range, mode.is_empty())?;
        } else if mode == FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE {
            state.model.punch(asked.inode, &range)?;
        } else {
            return Err(Errno::OPNOTSUPP);
        }
        Ok(Vec::new())
    }

    fn change_names(
        &self,
        asked: Asked,
        change: impl FnOnce(&mut Model) -> Result<(), Errno>,
    ) -> Answer {
        let mut state = self.begin(asked, Action::Name)?;
        change(&mut state.model)?;
        Ok(Vec::new())
    }

    /// Waits as long as the action takes, and for power; then it happens, unless it fails.
    fn begin(&self, asked: Asked, action: Action) -> Result<MutexGuard<'_, State>, Errno> {
        let begun = Instant::now();
        let mut state = self.state();
        loop {
            if state.power == Power::On
                && state
                    .last_change
                    .is_some_and(|last| state.model.order() >= last)
            {
                state.power = Power::Off;
                self.changed.notify_all();
            }
            let path = state.path(asked.inode);
            let delay = state.faults.delay(&path, action);
            let left = delay.saturating_sub(begun.elapsed());
            if state.power == Power::On && !left.is_zero() {
                if state.interrupted.contains(&asked.unique) {
                    return Err(Errno::INTR);
                }
                state = self.after(state, left);
                continue;
            }
            state = self.powered(state)?;
            let Some(errno) = state.faults.refusal(&path, action) else {
                return Ok(state);
            };
            state.refused += 1;
            return Err(errno);
        }
    }

    /// The state after a while, or as soon as something else is said about power or faults.
    fn after<'a>(&self, state: MutexGuard<'a, State>, delay: Duration) -> MutexGuard<'a, State> {
        match self.changed.wait_timeout(state, delay) {
            Ok((state, _)) => state,
            Err(poisoned) => poisoned.into_inner().0,
        }
    }

    /// The state, once there is power.
    fn powered<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
    ) -> Result<MutexGuard<'a, State>, Errno> {
        loop {
            match state.power {
                Power::On => return Ok(state),
                Power::Dead => return Err(Errno::IO),
                Power::Off => {
                    state = self
                        .changed
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}

/// Whether what is written with these flags is durable when it is answered.
fn synced(flags: u32) -> bool {
    flags & OFlags::DSYNC.bits() != 0
}
