//! A turn of a shard's stream connections: what happened is given out, then the kernel gets its buffers back.
//!
//! A turn enters the kernel once, which submits what the last turn queued and brings what happened since. Events are
//! given out in their order, one at a time, with nothing borrowed; then consumers learn of connections that are gone,
//! sources over their budget stop, buffers are published, and receives are started, in that order: published first, so
//! that no start finds the ring empty.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::bufring::Lease;
use super::connections::{Core, Listener, NEVER, Source};
use super::epoll_net::{accept_now, receive_now};
use super::listen::Listening;
use super::pause::Pause;
use super::poller::{Event, Kind, Token};
use super::sockopt;
use super::stream::{Closed, Conn, Refused, StreamConsumer, StreamSource, Streams};

/// How often idle times and deadlines are looked at, nanoseconds.
const SWEEP_NS: u64 = 250_000_000;
/// Sweeps in a row at which a connection has missed its deadline and might have received what waits, until it is closed.
const OVERDUE_SWEEPS: u8 = 8;
/// What is left at least, of the time that a connection has, after we held it up.
const GRACE_NS: u64 = OVERDUE_SWEEPS as u64 * SWEEP_NS;
/// How long accepting rests when the kernel cannot.
const ACCEPT_REST_NS: u64 = 100_000_000;
/// Reads of one connection in a turn, and buffers of one read, when it is read directly.
pub(super) const READS: usize = 4;
const READ_BUFFERS: usize = 4;
/// Reads of a connection that is to end, in a turn.
const LAST_READS: usize = 32;
/// Turns in which the listeners' last requests end when the shard stops.
const LAST_TURNS: usize = 64;
/// Connections accepted in a turn, on epoll.
const ACCEPTS: usize = 64;

/// What a direct read met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// Bytes, which are given out; `whole` when there may be more.
    Bytes { bytes: u32, whole: bool },
    /// Nothing that waits, or a connection that must not be read.
    Nothing,
    /// No buffer for what may wait.
    Withheld,
    /// The connection's end; 0 is the end of a stream.
    Ended(i32),
}

impl Streams {
    /// Gives out what happens until [`Streams::stop`]. To be spawned on the shard; it ends early only when the kernel
    /// refuses to go on.
    pub async fn run(self: Rc<Self>) -> io::Result<()> {
        let ended = self.receive().await;
        if ended.is_err() {
            self.is_broken.set(true);
            self.breaks.notify_waiters();
        }
        ended
    }

    /// Whether [`Streams::run`] ended with an error: nothing comes any more, and no connection is known to be gone.
    pub fn is_broken(&self) -> bool {
        self.is_broken.get()
    }

    /// Waits until that is so.
    pub async fn broken(&self) {
        let breaks = self.breaks.notified();
        if !self.is_broken() {
            breaks.await;
        }
    }

    async fn receive(&self) -> io::Result<()> {
        let (mut timer, mut pause) = (Timer::default(), Pause::new()?);
        while !self.stopped.get() {
            if self.turn()? {
                pause.give_way().await?;
            } else {
                let poll = |cx: &mut Context<'_>| self.poll_wake(cx, &mut timer);
                pause.until(std::future::poll_fn(poll)).await?;
                // However often it is woken for nothing, others have their turn.
                tokio::task::coop::consume_budget().await;
            }
        }
        self.leave_all()
    }

    /// Leaves all listeners, and waits until none of them wakes this shard instead of another.
    fn leave_all(&self) -> io::Result<()> {
        let sources: Vec<usize> = self.core.borrow().sources.iter().map(|(slot, _)| slot).collect();
        sources.into_iter().for_each(|slot| self.stop_listening(StreamSource(slot as u32)));
        for _ in 0..LAST_TURNS {
            if self.core.borrow().listeners.is_empty() {
                break;
            }
            self.turn()?;
        }
        Ok(())
    }

    /// Ends [`Streams::run`].
    pub fn stop(&self) {
        self.stopped.set(true);
        self.alarm.ring();
    }

    fn poll_wake(&self, cx: &mut Context<'_>, timer: &mut Timer) -> Poll<io::Result<()>> {
        if self.alarm.poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let core = &mut *self.core.borrow_mut();
        if let ready @ Poll::Ready(_) = core.poller.poll_bell(cx) {
            return ready;
        }
        if core.listeners.iter().any(|(_, listener)| listener.poll_handed(cx).is_ready()) {
            return Poll::Ready(Ok(()));
        }
        match core.next_timer_ns() {
            NEVER => Poll::Pending,
            due => timer.poll(cx, Instant::from_std(self.started) + Duration::from_nanos(due)).map(Ok),
        }
    }

    /// One turn; whether there may be more to do at once.
    fn turn(&self) -> io::Result<bool> {
        let mut events = std::mem::take(&mut *self.events.borrow_mut());
        {
            let core = &mut *self.core.borrow_mut();
            core.now_ns = self.elapsed_ns();
            core.poller.take(&mut events)?;
            core.counters.turns += u64::from(!events.is_empty());
        }
        let happened = !events.is_empty();
        events.drain(..).for_each(|event| self.give_out(event));
        *self.events.borrow_mut() = events;
        self.take_handed();
        self.run_timers();
        self.tell_ends();
        Ok(self.end_turn() || happened)
    }

    fn give_out(&self, event: Event) {
        match event {
            Event::Filled { token, buffer, bytes, goes_on } => self.filled(token, buffer, bytes, goes_on),
            Event::Unused { buffer } => self.buffers.unused(buffer),
            Event::Accepted { token, fd, goes_on } => self.accepted(token, fd, goes_on),
            Event::Ended { token, error } => match token.kind {
                Kind::Receive => self.receive_ended(token, error),
                Kind::Accept => self.accept_ended(token, error),
                Kind::Send => self.room_came(token),
                Kind::Cancel => {}
            },
            Event::Ready { token } => match token.kind {
                Kind::Receive => self.readable(token),
                Kind::Accept => self.acceptable(token),
                Kind::Send => self.room_came(token),
                Kind::Cancel => {}
            },
            Event::HungUp { token } => self.core.borrow_mut().hung_up(token),
        }
    }

    /// A ring filled buffers.
    fn filled(&self, token: Token, buffer: u16, bytes: u32, goes_on: bool) {
        let (consumer, account, cut) = {
            let core = &mut *self.core.borrow_mut();
            assert!(core.by_token(token).is_some(), "a slot stays taken while its receive is out");
            let (consumer, account) = (core.received(token.slot, bytes), core.account_of(token.slot));
            let cut = core.cuts(token.slot);
            core.bundle(token, bytes);
            if !goes_on {
                core.receive_is_over(token.slot);
            }
            (consumer, account, cut)
        };
        let mut open = true;
        self.buffers.claim(buffer, bytes as usize, account, |lease| {
            let bytes = lease.len();
            open = open && self.give_lease(&consumer, token, lease);
            if let Some(cut) = cut.as_ref().filter(|_| !open) {
                cut.set(cut.get() + bytes as u64);
            }
        });
    }

    /// Gives bytes to a connection's consumer, unless it was closed meanwhile.
    fn give_lease(&self, consumer: &Rc<dyn StreamConsumer>, token: Token, lease: Lease) -> bool {
        let conn = Conn { slot: token.slot, generation: token.generation };
        let open = self.core.borrow_mut().get(conn).is_some();
        if open {
            consumer.on_bytes(conn, lease);
        }
        open
    }

    /// Epoll says that a connection can be read: reads a bounded part of what is there.
    fn readable(&self, token: Token) {
        for _ in 0..READS {
            match self.read(token) {
                Read::Bytes { bytes, whole } => {
                    self.core.borrow_mut().bundle(token, bytes);
                    if !whole {
                        return;
                    }
                }
                Read::Nothing => return,
                Read::Withheld => {
                    let core = &mut *self.core.borrow_mut();
                    core.stop(token.slot);
                    return core.want(token.slot);
                }
                Read::Ended(error) => {
                    // Out of the set before its number can be another connection's.
                    self.core.borrow_mut().stop(token.slot);
                    return self.receive_ended(token, error);
                }
            }
        }
    }

    /// Reads once from a connection whose receives are out, and gives out what came.
    pub(super) fn read(&self, token: Token) -> Read {
        let is_out = self.core.borrow_mut().by_token(token).is_some_and(|connection| connection.receiving);
        if is_out { self.read_now(token) } else { Read::Nothing }
    }

    /// Reads once from a connection of which all that was received is given out.
    fn read_now(&self, token: Token) -> Read {
        let mut core = self.core.borrow_mut();
        let account = core.account_of(token.slot);
        if self.buffers.is_full(account) {
            return Read::Withheld;
        }
        let Some(mut lease) = self.buffers.take_run(READ_BUFFERS - 1, account) else {
            core.counters.without_buffer += 1;
            return Read::Withheld;
        };
        match receive_now(core.conns[token.slot as usize].fd.as_fd(), lease.room()) {
            Ok(bytes @ 1..) => {
                let whole = bytes == lease.held_bytes();
                lease.filled(bytes);
                let consumer = core.received(token.slot, bytes as u32);
                drop(core);
                let open = self.give_lease(&consumer, token, lease);
                Read::Bytes { bytes: bytes as u32, whole: whole && open }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Read::Nothing,
            ended => Read::Ended(ended.err().map_or(0, |error| error.raw_os_error().unwrap_or(libc::EIO))),
        }
    }

    /// Reads what has come of a connection whose input was ended, and closes it in the same breath: as long as it is there,
    /// the kernel goes on taking from the peer, and tells so to it. Where there is no room now, or no end, a receive goes on.
    fn read_to_end(&self, token: Token) {
        for _ in 0..LAST_READS {
            let is_open = {
                let core = &mut *self.core.borrow_mut();
                core.by_token(token).is_some() && core.may_receive(token.slot)
            };
            if !is_open {
                return;
            }
            let read = self.read_now(token);
            let core = &mut *self.core.borrow_mut();
            let how = match read {
                Read::Bytes { .. } => continue,
                Read::Withheld | Read::Nothing if core.unread(token.slot) > 0 => break,
                Read::Withheld | Read::Nothing | Read::Ended(0) => Closed::ByPeer,
                Read::Ended(error) => Closed::Failed(io::Error::from_raw_os_error(error).kind()),
            };
            return core.close(token.slot, how);
        }
        let core = &mut *self.core.borrow_mut();
        if core.by_token(token).is_some() {
            core.want(token.slot);
        }
    }

    fn receive_ended(&self, token: Token, error: i32) {
        if self.note_receive_ended(token, error) {
            self.read_to_end(token);
        }
    }

    /// Whether more is to be read directly.
    fn note_receive_ended(&self, token: Token, error: i32) -> bool {
        let core = &mut *self.core.borrow_mut();
        let Some(connection) = core.by_token(token) else { return false };
        (connection.receiving, connection.stopping) = (false, false);
        if connection.closing.is_some() {
            core.finish_if_over(token.slot);
            return false;
        }
        match error {
            libc::ENOBUFS => {
                core.counters.without_buffer += 1;
                core.want(token.slot);
            }
            libc::ECANCELED | libc::EINTR | libc::EAGAIN => core.want(token.slot),
            0 if core.is_ending(token.slot) => return true,
            0 => core.close(token.slot, Closed::ByPeer),
            error => {
                let kind = io::Error::from_raw_os_error(error).kind();
                core.close(token.slot, Closed::Failed(kind));
            }
        }
        false
    }

    fn room_came(&self, token: Token) {
        let core = &mut *self.core.borrow_mut();
        let Some(connection) = core.by_token(token) else { return };
        connection.awaiting_room = false;
        if connection.closing.is_some() {
            return core.finish_if_over(token.slot);
        }
        core.room_came(token.slot);
        core.send_outgoing(token.slot);
    }

    /// Epoll says that connections wait.
    fn acceptable(&self, token: Token) {
        for _ in 0..ACCEPTS {
            let core = self.core.borrow();
            let Some(listener) = core.listener(token) else { return };
            let new = accept_now(listener.listening.as_fd());
            drop(core);
            match new {
                Ok(fd) => self.accepted(token, fd, true),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return self.accept_ended(token, error.raw_os_error().unwrap_or(libc::EIO)),
            }
        }
    }

    pub(super) fn accepted(&self, token: Token, fd: OwnedFd, goes_on: bool) {
        let (consumer, source, placed, seat) = {
            let core = &mut *self.core.borrow_mut();
            let Some(listener) = core.listeners.get(token.slot as usize) else { return };
            let (source, leaving) = (listener.source, listener.leaving);
            let (listening, seat) = (listener.listening.clone(), listener.seat);
            let Source { consumer, options, removed, .. } = &core.sources[source as usize];
            let (consumer, removed) = (Rc::clone(consumer), *removed);
            let placed =
                (listening.connections() < options.connections_max).then(|| listening.place(seat, fd));
            core.counters.refused += u64::from(placed.is_none());
            if !goes_on && leaving {
                // That was the last word of the request; no end is told after it.
                core.listeners.remove(token.slot as usize);
            } else if !goes_on {
                core.accept_again(token.slot, 0);
            }
            let seats = listening.all_seats();
            if removed {
                // The peer finds its connection closed.
                placed.flatten().iter().for_each(|_| seats[seat].closed());
                return;
            }
            (consumer, source, placed, (seats, seat))
        };
        match placed {
            None => consumer.on_refused(Refused::Limit),
            Some(Some(fd)) => {
                self.tell_gone();
                self.open(source, fd, Some(seat));
            }
            Some(None) => {}
        }
    }

    fn accept_ended(&self, token: Token, error: i32) {
        let told = {
            let core = &mut *self.core.borrow_mut();
            let Some(listener) = core.listeners.get_mut(token.slot as usize) else { return };
            listener.accepting = false;
            if listener.leaving {
                core.listeners.remove(token.slot as usize);
                return;
            }
            let consumer = Rc::clone(&core.sources[listener.source as usize].consumer);
            match error {
                libc::ECANCELED | libc::ECONNABORTED | libc::EINTR | libc::EAGAIN => {
                    core.accept_again(token.slot, 0);
                    return;
                }
                _ => core.accept_again(token.slot, ACCEPT_REST_NS),
            }
            consumer
        };
        told.on_refused(Refused::Accept(io::Error::from_raw_os_error(error)));
    }

    /// Takes the connections that other shards handed over.
    fn take_handed(&self) {
        let core = self.core.borrow();
        let handed = |listener: &Listener| !listener.leaving && listener.listening.has_handed(listener.seat);
        let seats: Vec<(Arc<Listening>, usize, u32)> = core
            .listeners
            .iter()
            .filter(|(_, listener)| handed(listener))
            .map(|(_, listener)| (listener.listening.clone(), listener.seat, listener.source))
            .collect();
        drop(core);
        for (listening, seat, source) in seats {
            while let Some(fd) = listening.take_handed(seat) {
                self.tell_gone();
                self.open(source, fd, Some((listening.all_seats(), seat)));
            }
        }
    }

    fn run_timers(&self) {
        self.fetch_raised();
        let core = &mut *self.core.borrow_mut();
        if core.now_ns >= core.sweep_ns && core.sweep() {
            self.buffers.look();
        }
    }

    /// Tells consumers which connections are gone. Before each new one, too: it may get the slot of one of them.
    pub(super) fn tell_gone(&self) {
        loop {
            let gone = std::mem::take(&mut self.core.borrow_mut().gone);
            if gone.is_empty() {
                break;
            }
            gone.into_iter().for_each(|(consumer, conn, how)| consumer.on_close(conn, how));
        }
    }

    /// Tells consumers which connections are gone, and the sources that got something that this was all.
    fn tell_ends(&self) {
        self.tell_gone();
        let touched: Vec<Rc<dyn StreamConsumer>> = {
            let core = &mut *self.core.borrow_mut();
            let told = |source: &mut Source| {
                std::mem::take(&mut source.touched).then(|| Rc::clone(&source.consumer))
            };
            core.sources.iter_mut().filter_map(|(_, source)| told(source)).collect()
        };
        touched.into_iter().for_each(|consumer| consumer.on_turn_end());
    }

    /// Gives the kernel what it needs for the next turn; whether that turn should follow at once.
    fn end_turn(&self) -> bool {
        // Whatever was asked for during the turn is done below.
        self.alarm.hush();
        let core = &mut *self.core.borrow_mut();
        let sources: Vec<u32> = core.sources.iter().map(|(slot, _)| slot as u32).collect();
        for slot in sources {
            let listens = core.listeners.iter().any(|(_, listener)| listener.source == slot);
            let source = &mut core.sources[slot as usize];
            if source.removed && source.open == 0 && !listens {
                self.buffers.close_account(source.account);
                core.sources.remove(slot as usize);
                continue;
            }
            let full = self.buffers.is_full(source.account);
            match (std::mem::replace(&mut source.full, full), full) {
                (false, true) => core.stop_source(slot),
                (true, false) => core.want_source(slot),
                _ => {}
            }
        }
        if core.sweep_ns == NEVER && self.buffers.wants_looks() {
            core.sweep_ns = core.now_ns + SWEEP_NS;
        }
        if self.buffers.publish() == 0 {
            // Nothing to receive into: the alarm rings when a buffer is back.
            return false;
        }
        let starts = !core.queue.is_empty();
        core.start_queued();
        starts || !core.gone.is_empty()
    }
}

impl Core {
    /// Notes that a connection brought bytes; who takes them.
    fn received(&mut self, slot: u32, bytes: u32) -> Rc<dyn StreamConsumer> {
        self.counters.receives += 1;
        self.counters.bytes += u64::from(bytes);
        let connection = &mut self.conns[slot as usize];
        connection.received_ns = self.now_ns;
        connection.owed_bytes = connection.owed_bytes.saturating_sub(u64::from(bytes));
        let source = &mut self.sources[connection.source as usize];
        source.touched = true;
        source.bytes += u64::from(bytes);
        Rc::clone(&source.consumer)
    }

    /// A receive ended with the bytes it brought.
    fn receive_is_over(&mut self, slot: u32) {
        let connection = &mut self.conns[slot as usize];
        (connection.receiving, connection.stopping) = (false, false);
        if connection.closing.is_some() {
            self.finish_if_over(slot);
        } else {
            self.want(slot);
        }
    }

    /// Closes connections that were idle too long or missed their deadline, and tries again to accept. Whether it is so long since
    /// the last one as sweeps are apart.
    fn sweep(&mut self) -> bool {
        self.sweep_ns = NEVER;
        let now_ns = self.now_ns;
        let counts = now_ns.saturating_sub(self.swept_ns) >= SWEEP_NS;
        if counts {
            self.swept_ns = now_ns;
        }
        let mut late = Vec::new();
        let mut again = self.sources.iter().any(|(_, source)| source.options.idle.is_some());
        for (slot, connection) in &mut self.conns {
            let idle = self.sources[connection.source as usize].options.idle;
            let idle_ns = idle.map_or(NEVER, |idle| idle.as_nanos() as u64);
            again |= connection.deadline_ns != NEVER;
            let is_near = connection.deadline_ns < now_ns + GRACE_NS;
            if is_near && !connection.receiving && sockopt::has_unread(connection.fd.as_fd()) {
                // It is we who hold it up. When its bytes are read, it needs time for what it has to answer.
                connection.deadline_ns = now_ns + GRACE_NS;
            }
            let silent_ns = now_ns.saturating_sub(connection.received_ns);
            let how = match () {
                () if now_ns >= connection.deadline_ns => Closed::Late,
                () if silent_ns >= idle_ns => Closed::Idle,
                () => {
                    connection.overdue = 0;
                    continue;
                }
            };
            if !sockopt::has_unread(connection.fd.as_fd()) {
                late.push((slot as u32, how));
                continue;
            }
            // Whose bytes wait is not silent, and is held up by us as long as it may not receive.
            if !connection.receiving {
                connection.overdue = 0;
                continue;
            }
            // Who shakes hands byte by byte has always some that wait.
            connection.overdue = connection.overdue.saturating_add(u8::from(counts));
            if how == Closed::Late && connection.overdue >= OVERDUE_SWEEPS {
                late.push((slot as u32, how));
            }
        }
        // What is received and not taken is nowhere to be seen: the next turn will tell.
        let is_time = late.is_empty() || self.poller.is_all_taken();
        if is_time {
            late.into_iter().for_each(|(slot, how)| self.close(slot, how));
        }
        let resting: Vec<u32> = self.listeners.iter().map(|(slot, _)| slot as u32).collect();
        for slot in resting {
            let retry_ns = self.listeners[slot as usize].retry_ns;
            if now_ns >= retry_ns {
                self.accept_again(slot, 0);
            } else {
                again |= retry_ns != NEVER;
            }
        }
        if again {
            self.sweep_ns = self.sweep_ns.min(if is_time { now_ns + SWEEP_NS } else { now_ns });
        }
        counts
    }

    fn next_timer_ns(&self) -> u64 {
        self.tick_ns.min(self.sweep_ns)
    }

    fn listener(&self, token: Token) -> Option<&Listener> {
        self.listeners
            .get(token.slot as usize)
            .filter(|listener| listener.generation == token.generation && !listener.leaving)
    }

    /// Accepts again, now or after a rest.
    fn accept_again(&mut self, slot: u32, rest_ns: u64) {
        let Some(listener) = self.listeners.get_mut(slot as usize) else { return };
        let token = Token { kind: Kind::Accept, slot, generation: listener.generation };
        let fd = listener.listening.as_fd();
        listener.retry_ns = NEVER;
        if listener.leaving {
            return;
        }
        if rest_ns == 0 {
            listener.accepting = self.poller.accept(fd, token).is_ok();
            return;
        }
        self.poller.stop(fd, token);
        listener.retry_ns = self.now_ns + rest_ns;
        self.sweep_ns = self.sweep_ns.min(listener.retry_ns);
    }

    fn account_of(&self, slot: u32) -> u16 {
        self.sources[self.conns[slot as usize].source as usize].account
    }

    fn room_came(&mut self, slot: u32) {
        let token = Token { kind: Kind::Receive, slot, generation: self.conns[slot as usize].generation };
        self.poller.room_came(self.conns[slot as usize].fd.as_fd(), token);
    }

    /// The peer is gone: answers that wait for it are pointless, and epoll would report it again and again.
    fn hung_up(&mut self, token: Token) {
        let Some(connection) = self.by_token(token) else { return };
        connection.outgoing = Vec::new();
        if std::mem::take(&mut connection.awaiting_room) {
            self.room_came(token.slot);
        }
    }
}

/// The runtime's timer, set again only when it would wake too late.
#[derive(Default)]
struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    fn poll(&mut self, cx: &mut Context<'_>, due: Instant) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if sleep.is_elapsed() || sleep.deadline() > due {
            sleep.as_mut().reset(due);
        }
        sleep.as_mut().poll(cx)
    }
}
