//! Requests on their way to the local node, over as many connections as it takes: what was not answered when a connection was lost is
//! sent again on the next one, in the old order, for as long as it takes.
//!
//! Repeating a write is harmless as long as nothing newer was written there in between. Two rules see to it:
//! * A change is not sent while an older one that overlaps it is unanswered.
//! * This side never leaves a connection on which something is unanswered: the server would still read what lies in its socket, and
//!   do it after what the next connection brought. (When the server leaves, it does what it has admitted in its order, and no more.)
//!
//! Threads: the *sender* owns the connection and makes the next one; a *receiver* for each connection takes the replies.

use super::nbd::{self, Export, command};
use parking_lot::{Condvar, Mutex};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tracing::{error, info, warn};

/// Pause before the next connection is tried.
const BACK_OFF_MIN: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_secs(2);
/// How often a request that is answered with EIO is tried in all: a server that goes down answers so, a medium that is bad, too.
const IO_ERROR_TRIES_MAX: u32 = 6;
const EIO: i32 = 5;
/// The server or the export is being shut down.
const ESHUTDOWN: u32 = 108;

/// What is to be done.
pub enum Action {
    /// Read so many bytes.
    Read(u32),
    /// Write these bytes.
    Write(Arc<[u8]>),
    /// Make so many bytes zeroes, without sending them.
    Zero(u32),
    /// Make durable what was answered.
    Flush,
}

/// Takes what was read (nothing otherwise), or an error number.
pub type Done = Box<dyn FnOnce(Result<Vec<u8>, i32>) + Send>;

struct Request {
    action: Action,
    offset: u64,
    tries: u32,
    done: Done,
}

impl Request {
    fn bytes(&self) -> u32 {
        match &self.action {
            Action::Read(bytes) | Action::Zero(bytes) => *bytes,
            // Written pieces are as large as the kernel's requests: about a MiB.
            Action::Write(data) => u32::try_from(data.len()).unwrap_or(u32::MAX),
            Action::Flush => 0,
        }
    }

    fn changes(&self) -> bool {
        matches!(self.action, Action::Write(_) | Action::Zero(_))
    }

    fn overlaps(&self, other: &Request) -> bool {
        self.offset < other.offset + u64::from(other.bytes())
            && other.offset < self.offset + u64::from(self.bytes())
    }
}

/// What came of an attempt to connect.
pub enum Dialed {
    /// It is open, and may be used.
    Open(TcpStream, Export),
    /// Not now; why.
    NotNow(String),
    /// Never again; why.
    Never(String),
}

/// Makes connections.
pub type Dial = Box<dyn FnMut() -> Dialed + Send>;

#[derive(Default)]
struct State {
    /// All that is unanswered, oldest first.
    requests: BTreeMap<u64, Request>,
    /// Those that the present connection does not have.
    unsent: BTreeSet<u64>,
    /// Those that it has.
    sent: BTreeSet<u64>,
    /// Those that it answered so that they must be tried again, on the next one.
    refused: BTreeSet<u64>,
    next_cookie: u64,
    bytes: u64,
    /// The present connection is gone.
    lost: bool,
    /// The present connection is to be left as soon as nothing on it is unanswered.
    leave: bool,
    /// Who waits for the export's size after the next connection is made.
    growing: Vec<mpsc::Sender<u64>>,
    /// No more requests will come.
    stopping: bool,
    /// Nothing will ever be answered again.
    over: bool,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// The way to an export.
#[derive(Clone)]
pub struct Requests {
    shared: Arc<Shared>,
}

impl Requests {
    /// Begins with a connection that is open; `dial` makes the next ones. The thread ends some time after [`Requests::stop`].
    ///
    /// # Errors
    /// The system has no more threads.
    pub fn start(
        stream: TcpStream,
        export: Export,
        dial: Dial,
    ) -> io::Result<(Requests, JoinHandle<()>)> {
        let state = State {
            bytes: export.bytes,
            next_cookie: 1,
            ..State::default()
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let ours = Arc::clone(&shared);
        let sender = thread::Builder::new()
            .name("nbd-sender".to_owned())
            .spawn(move || live(&ours, stream, dial))?;
        Ok((Requests { shared }, sender))
    }

    /// Sends a request, some time; `done` is called once.
    pub fn submit(&self, action: Action, offset: u64, done: Done) {
        let mut state = self.shared.state.lock();
        if state.over || state.stopping {
            drop(state);
            done(Err(EIO));
            return;
        }
        let cookie = state.next_cookie;
        state.next_cookie += 1;
        state.unsent.insert(cookie);
        let request = Request {
            action,
            offset,
            tries: 0,
            done,
        };
        state.requests.insert(cookie, request);
        self.shared.changed.notify_all();
    }

    /// The export's size.
    pub fn bytes(&self) -> u64 {
        self.shared.state.lock().bytes
    }

    /// Looks anew how large the export is: by another connection, as soon as all that is under way was answered.
    pub fn look_anew(&self) -> mpsc::Receiver<u64> {
        let (sender, receiver) = mpsc::channel();
        let mut state = self.shared.state.lock();
        state.growing.push(sender);
        state.leave = true;
        self.shared.changed.notify_all();
        receiver
    }

    /// Ends politely, once all is answered.
    pub fn stop(&self) {
        self.shared.state.lock().stopping = true;
        self.shared.changed.notify_all();
    }
}

/// Why a connection is not used any more.
enum End {
    Lost,
    Left,
    Stopped,
}

fn live(shared: &Arc<Shared>, mut stream: TcpStream, mut dial: Dial) {
    let mut back_off = BACK_OFF_MIN;
    loop {
        let answered = match use_up(shared, &stream) {
            (End::Stopped, _) => return,
            (End::Lost, answered) => {
                warn!("the connection to the local node is lost: I/O waits for the next one");
                answered
            }
            (End::Left, answered) => answered,
        };
        if answered {
            back_off = BACK_OFF_MIN;
        }
        let mut said = String::new();
        let export;
        (stream, export) = loop {
            match dial() {
                Dialed::Open(stream, export) => break (stream, export),
                Dialed::Never(why) => {
                    error!(reason = %why, "this attachment is over: all I/O fails");
                    give_up(shared);
                    return;
                }
                Dialed::NotNow(why) if why != said => {
                    warn!(reason = %why, "no connection yet: I/O waits");
                    said = why;
                }
                Dialed::NotNow(_) => {}
            }
            if !pause(shared, back_off) {
                give_up(shared);
                return;
            }
            back_off = (back_off * 2).min(BACK_OFF_MAX);
        };
        info!(bytes = export.bytes, "connected again: I/O goes on");
        begin_anew(shared, export);
        back_off = (back_off * 2).min(BACK_OFF_MAX);
    }
}

/// A pause before the next try; false when nobody waits for it any more.
fn pause(shared: &Shared, time: Duration) -> bool {
    let end = std::time::Instant::now() + time;
    let mut state = shared.state.lock();
    loop {
        if state.stopping && state.requests.is_empty() {
            return false;
        }
        if shared.changed.wait_until(&mut state, end).timed_out() {
            return true;
        }
    }
}

fn begin_anew(shared: &Shared, export: Export) {
    let mut state = shared.state.lock();
    let State {
        sent,
        refused,
        unsent,
        ..
    } = &mut *state;
    unsent.append(sent);
    unsent.append(refused);
    state.bytes = export.bytes;
    state.lost = false;
    state.leave = false;
    for waiting in state.growing.drain(..) {
        // Who asked may have stopped waiting.
        let _ = waiting.send(export.bytes);
    }
}

fn give_up(shared: &Shared) {
    let requests = {
        let mut state = shared.state.lock();
        state.over = true;
        state.growing.clear();
        state.unsent.clear();
        state.sent.clear();
        state.refused.clear();
        std::mem::take(&mut state.requests)
    };
    for request in requests.into_values() {
        (request.done)(Err(EIO));
    }
}

/// Uses a connection to its end; whether anything was answered on it.
fn use_up(shared: &Arc<Shared>, stream: &TcpStream) -> (End, bool) {
    let receiver = stream.try_clone().and_then(|stream| {
        let shared = Arc::clone(shared);
        thread::Builder::new()
            .name("nbd-receiver".to_owned())
            .spawn(move || receive_all(&shared, stream))
    });
    let end = send_all(shared, stream);
    if matches!(end, End::Left | End::Stopped) {
        let header = nbd::header(command::DISCONNECT, 0, 0, 0, 0);
        // The server may be gone already.
        let _ = (&mut &*stream).write_all(&header);
    }
    let _ = stream.shutdown(Shutdown::Both);
    let answered = receiver.is_ok_and(|thread| thread.join().unwrap_or(false));
    (end, answered)
}

fn send_all(shared: &Shared, mut stream: &TcpStream) -> End {
    loop {
        let (header, data) = {
            let mut state = shared.state.lock();
            let cookie = loop {
                if state.lost {
                    return End::Lost;
                }
                if state.leave {
                    if state.sent.is_empty() {
                        return End::Left;
                    }
                } else if state.stopping && state.requests.is_empty() {
                    return End::Stopped;
                } else if let Some(cookie) = next(&state) {
                    break cookie;
                }
                shared.changed.wait(&mut state);
            };
            state.unsent.remove(&cookie);
            state.sent.insert(cookie);
            message(cookie, &state.requests[&cookie])
        };
        let sent = stream
            .write_all(&header)
            .and_then(|()| data.map_or(Ok(()), |data| stream.write_all(&data)));
        if sent.is_err() {
            shared.state.lock().lost = true;
        }
    }
}

/// The oldest request that may be sent.
fn next(state: &State) -> Option<u64> {
    state.unsent.iter().copied().find(|cookie| {
        let request = &state.requests[cookie];
        !request.changes()
            || !state
                .requests
                .range(..cookie)
                .any(|(_, older)| older.changes() && older.overlaps(request))
    })
}

fn message(cookie: u64, request: &Request) -> ([u8; 28], Option<Arc<[u8]>>) {
    let (command, data) = match &request.action {
        Action::Read(_) => (command::READ, None),
        Action::Write(data) => (command::WRITE, Some(Arc::clone(data))),
        Action::Zero(_) => (command::WRITE_ZEROES, None),
        Action::Flush => (command::FLUSH, None),
    };
    let header = nbd::header(command, 0, cookie, request.offset, request.bytes());
    (header, data)
}

/// Takes replies until the connection ends; whether there was a good one.
fn receive_all(shared: &Shared, stream: TcpStream) -> bool {
    let mut input = BufReader::with_capacity(256 << 10, stream);
    let mut answered = false;
    while let Ok((cookie, error)) = nbd::reply(&mut input) {
        match receive(shared, &mut input, cookie, error) {
            Ok(good) => answered |= good,
            Err(error) => {
                warn!(%error, "a reply makes no sense");
                break;
            }
        }
    }
    // So that the sender does not wait for a server that makes no sense.
    let _ = input.get_ref().shutdown(Shutdown::Both);
    shared.state.lock().lost = true;
    shared.changed.notify_all();
    answered
}

/// Takes one reply; whether its request is done.
fn receive(shared: &Shared, input: &mut impl Read, cookie: u64, error: u32) -> io::Result<bool> {
    let unknown = || io::Error::new(io::ErrorKind::InvalidData, "a reply to no request");
    let length = {
        let mut state = shared.state.lock();
        if !state.sent.contains(&cookie) {
            return Err(unknown());
        }
        let request = state.requests.get_mut(&cookie).ok_or_else(unknown)?;
        request.tries += 1;
        let again = error == ESHUTDOWN
            || (i64::from(error) == i64::from(EIO) && request.tries < IO_ERROR_TRIES_MAX);
        if again {
            state.sent.remove(&cookie);
            state.refused.insert(cookie);
            state.leave = true;
            shared.changed.notify_all();
            return Ok(false);
        }
        match (&request.action, error) {
            (Action::Read(bytes), 0) => *bytes,
            _ => 0,
        }
    };
    let mut data = vec![0; length as usize];
    input.read_exact(&mut data)?;
    let request = {
        let mut state = shared.state.lock();
        state.sent.remove(&cookie);
        shared.changed.notify_all();
        state.requests.remove(&cookie).ok_or_else(unknown)?
    };
    let result = match i32::try_from(error) {
        Ok(0) => Ok(data),
        Ok(error) => Err(error),
        Err(_) => Err(EIO),
    };
    (request.done)(result);
    Ok(true)
}

#[cfg(test)]
mod tests;
