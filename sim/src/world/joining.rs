//! Devices that join: at the start of the world, later, or again under a new key after their disk was lost.
//!
//! Tickets and requests go through the code that ships. While the world runs, a ticket is used some time after it was
//! written: it may have expired by the inviter's clock, the inviter may be down, out of reach or gone; then the person
//! asks for another ticket, of any device that is up and may invite.

use std::time::Duration;

use holdfast_library::{Effect, LibraryError};
use holdfast_protocol::certificate::Role;
use holdfast_protocol::id::DeviceId;
use holdfast_protocol::keys::DeviceKey;
use holdfast_protocol::pairing::{JoinRefused, JoinRequest, Joined, Ticket};
use holdfast_protocol::time::WallTime;

use super::{Coming, World};
use crate::chance::Chance;
use crate::check::Violation;
use crate::fault::FaultClass;
use crate::node::Node;

/// How long tickets live that are used at once.
const TICKET_MS: u64 = 3_600_000;
const TICKET_MS_MIN: u64 = 60_000;
/// How much later than it was written a ticket is used.
const USED_AFTER_MS_MAX: u64 = 120_000;
/// When a person tries again at the latest.
const AGAIN_MS_MAX: u64 = 10_000;
/// When a device tries again once faults have stopped.
const AGAIN_AT_LAST_MS: u64 = 1_000;

/// A device that is no member yet.
pub(crate) struct Waiting {
    key: DeviceKey,
    chance: Chance,
    /// What its person holds in hand.
    ticket: Option<Ticket>,
    /// Until when that can be used, by the inviter's clock.
    expires: WallTime,
}

/// What came of a request to join.
type Answer = Result<Result<Joined, JoinRefused>, LibraryError>;

impl World {
    /// A device joins with a ticket of the first, before anything else happens.
    pub(crate) fn join(&mut self, number: usize) -> Result<(), Violation> {
        let (key, mut chance) = Node::stranger(self.seed, number, 0);
        if self.nodes[0].library.is_none() {
            return Ok(());
        }
        let failed = |error| Violation::failed(0, error);
        let role = self.role(number);
        let (ticket, _) = self.invite(0, (role, TICKET_MS), &mut chance).map_err(failed)?;
        let refused = |what: String| Violation::Joining { node: number, what };
        let joined = self.ask(0, number, &ticket, (&key, &mut chance)).map_err(failed)?;
        let joined = joined.map_err(|error| refused(error.to_string()))?;
        let node =
            Node::admitted(number, (key, chance), joined).map_err(|error| Violation::failed(number, error.into()))?;
        self.settle(node);
        Ok(())
    }

    /// Whether a device may invite others: some may where devices join while the world runs, so that not everything
    /// hangs on the first.
    fn role(&self, number: usize) -> Role {
        let classes = &self.options.classes;
        let mut inviting = [FaultClass::JoinLate, FaultClass::DiskLost, FaultClass::Removed].iter();
        let is_inviting = inviting.any(|class| classes.contains(class));
        let is_owner = is_inviting && Chance::new(self.seed, &format!("role {number}")).one_in(2);
        if is_owner { Role::Owner } else { Role::Member }
    }

    /// A device that will join after a while, in place of none or of one that is gone; `incarnation` counts those.
    pub(crate) fn wait_to_join(&mut self, number: usize, incarnation: u32, after: u64) {
        let (key, chance) = Node::stranger(self.seed, number, incarnation);
        self.hosts[number].waiting = Some(Waiting { key, chance, ticket: None, expires: WallTime(0) });
        self.push(after, Coming::Join { node: number });
    }

    /// The next step of a device on its way into the library: a ticket, or its use.
    pub(crate) fn go_on_joining(&mut self, node: usize) {
        if self.now >= self.heal_at {
            return self.join_at_last(node);
        }
        let Some(mut waiting) = self.hosts[node].waiting.take() else { return };
        let after = match waiting.ticket.take() {
            None => self.get_ticket(node, &mut waiting),
            Some(ticket) => match self.use_ticket(node, ticket, waiting) {
                Some(left) => {
                    waiting = left;
                    waiting.chance.between(100, AGAIN_MS_MAX)
                }
                None => return,
            },
        };
        self.hosts[node].waiting = Some(waiting);
        self.push(after, Coming::Join { node });
    }

    fn get_ticket(&mut self, node: usize, waiting: &mut Waiting) -> u64 {
        let inviters: Vec<usize> =
            (0..self.nodes.len()).filter(|inviter| self.may_invite(*inviter) && self.answers(node, *inviter)).collect();
        let Some(&inviter) = waiting.chance.pick(&inviters) else {
            return waiting.chance.between(100, AGAIN_MS_MAX);
        };
        let ttl_ms = waiting.chance.span(TICKET_MS_MIN, TICKET_MS);
        let role = self.role(node);
        match self.invite(inviter, (role, ttl_ms), &mut waiting.chance) {
            Ok((ticket, expires)) => {
                self.trace.note(self.now, Some(node), format_args!("has a ticket of node {inviter}"));
                (waiting.ticket, waiting.expires) = (Some(ticket), expires);
            }
            Err(error) => self.library_failed(inviter, error),
        }
        waiting.chance.span(50, USED_AFTER_MS_MAX)
    }

    /// Uses a ticket; the device that still waits when that did not do.
    fn use_ticket(&mut self, node: usize, ticket: Ticket, mut waiting: Waiting) -> Option<Waiting> {
        let inviter = self.numbers.get(&ticket.inviter()).copied();
        let is_there = |inviter: &usize| !self.hosts[*inviter].is_removed && self.answers(node, *inviter);
        let Some(inviter) = inviter.filter(is_there) else {
            // Perhaps it answers later. The person does not try for ever.
            waiting.ticket = Some(ticket).filter(|_| !waiting.chance.one_in(3));
            return Some(waiting);
        };
        let is_over = self.clock(inviter).wall > waiting.expires;
        let answer = self.ask(inviter, node, &ticket, (&waiting.key, &mut waiting.chance));
        match answer {
            Err(error) => self.library_failed(inviter, error),
            Ok(Err(refused)) => {
                self.trace.note(self.now, Some(node), format_args!("is refused by node {inviter}: {refused}"));
                // A device that was put back as it was may have forgotten the invitation, and a copy does not know it.
                let mut forgetful = [FaultClass::BackupRestored, FaultClass::Cloned].iter();
                let is_forgotten = forgetful.any(|class| self.options.classes.contains(class));
                let is_right = match refused {
                    JoinRefused::Expired => is_over,
                    JoinRefused::WrongTicket => is_forgotten,
                    JoinRefused::NotYet => true,
                    _ => false,
                };
                if !is_right {
                    self.fail(Violation::Joining { node, what: refused.to_string() });
                }
            }
            // The answer is lost now and then: the device asks again, with the same ticket or another.
            Ok(Ok(_)) if waiting.chance.one_in(4) => {
                waiting.ticket = Some(ticket).filter(|_| !waiting.chance.one_in(3));
            }
            Ok(Ok(joined)) => {
                self.joined(node, inviter, joined, waiting);
                return None;
            }
        }
        Some(waiting)
    }

    fn joined(&mut self, number: usize, inviter: usize, joined: Joined, waiting: Waiting) {
        let Waiting { key, chance, .. } = waiting;
        let mut node = match Node::admitted(number, (key, chance), joined) {
            Ok(node) => node,
            Err(error) => return self.fail(Violation::failed(number, error.into())),
        };
        node.inherit(&self.nodes[number]);
        self.trace.name(&node.device_id(), number);
        self.numbers.insert(node.device_id(), number);
        self.trace.note(self.now, Some(number), format_args!("has joined through node {inviter}"));
        self.nodes[number] = node;
        self.start(number);
        let run = self.nodes[number].run;
        self.push(10, Coming::Dialled { from: number, run, to: self.nodes[inviter].device_id() });
    }

    /// Faults have stopped: whoever still waits joins as soon as anybody is there who may invite and can be dialled.
    pub(crate) fn join_at_last(&mut self, node: usize) {
        let Some(mut waiting) = self.hosts[node].waiting.take() else { return };
        // Two devices that cannot be dialled never meet: the one would know nobody but the other.
        let inviter = (0..self.nodes.len()).find(|inviter| self.may_invite(*inviter) && self.answers(node, *inviter));
        let answer = inviter.map(|inviter| {
            let (ticket, _) = self.invite(inviter, (self.role(node), TICKET_MS), &mut waiting.chance)?;
            let joined = self.ask(inviter, node, &ticket, (&waiting.key, &mut waiting.chance))?;
            Ok((inviter, joined))
        });
        match answer {
            Some(Ok((inviter, Ok(joined)))) => return self.joined(node, inviter, joined, waiting),
            Some(Ok((_, Err(JoinRefused::NotYet)))) => {}
            Some(Ok((_, Err(refused)))) => self.fail(Violation::Joining { node, what: refused.to_string() }),
            Some(Err(error)) => self.library_failed(inviter.unwrap_or_default(), error),
            None => {}
        }
        self.hosts[node].waiting = Some(waiting);
        self.push(AGAIN_AT_LAST_MS, Coming::Join { node });
    }

    fn may_invite(&self, inviter: usize) -> bool {
        // Nobody asks a device that is known to be removed.
        let is_removed = self.hosts[inviter].is_removed;
        !is_removed && self.nodes[inviter].library.as_ref().is_some_and(|library| library.may_invite())
    }

    /// Whether one device's request reaches the other.
    fn answers(&self, from: usize, to: usize) -> bool {
        self.nodes[to].library.is_some()
            && self.hosts[to].held.is_none()
            && self.network.is_reachable(from, to, self.now)
    }

    /// A ticket that lives so long, durable before it is shown; and until when it can be used.
    fn invite(
        &mut self,
        inviter: usize,
        (role, ttl_ms): (Role, u64),
        chance: &mut Chance,
    ) -> Result<(Ticket, WallTime), LibraryError> {
        let now = self.clock(inviter);
        let of = &mut self.nodes[inviter];
        let key = of.device().clone();
        let Some(library) = &mut of.library else { return Err(LibraryError::Catalog("it is down".to_owned())) };
        let invited = library.invite(now, &key, &[], &chance.seed(), (role, Duration::from_millis(ttl_ms)))?;
        self.make_durable(inviter)?;
        Ok(invited)
    }

    /// Asks to be let in. What is answered is durable first.
    fn ask(
        &mut self,
        inviter: usize,
        number: usize,
        ticket: &Ticket,
        (key, chance): (&DeviceKey, &mut Chance),
    ) -> Answer {
        let now = self.clock(inviter);
        let request = JoinRequest::new(ticket, key, &format!("node {number}"));
        let of = &mut self.nodes[inviter];
        let inviter_key = of.device().clone();
        let Some(library) = &mut of.library else { return Err(LibraryError::Catalog("it is down".to_owned())) };
        let (answer, effects): (_, Vec<Effect>) = library.admit(now, &inviter_key, &[], &request, &chance.seed())?;
        self.make_durable(inviter)?;
        self.perform(inviter, effects);
        let joined = answer.map(|admission| ticket.accept(key, &request, &admission));
        match joined {
            Err(refused) => Ok(Err(refused)),
            Ok(Ok(joined)) => Ok(Ok(joined)),
            Ok(Err(error)) => Err(LibraryError::Catalog(error.to_string())),
        }
    }

    pub(crate) fn make_durable(&self, node: usize) -> Result<(), LibraryError> {
        let metadata = &self.nodes[node].machine.metadata;
        Ok(metadata.complete_flush(metadata.begin_flush())?)
    }

    /// Whether the node is still to join.
    #[must_use]
    pub fn is_waiting(&self, node: usize) -> bool {
        self.hosts.get(node).is_some_and(|host| host.waiting.is_some())
    }

    /// Whether the node is a device of the library: not one that waits to join, nor one that left for good.
    #[must_use]
    pub fn is_member(&self, node: usize) -> bool {
        self.hosts.get(node).is_some_and(|host| host.waiting.is_none() && !host.is_gone)
    }

    /// A device is no more, whoever has its number next.
    pub(crate) fn depart(&mut self, device: DeviceId) {
        self.numbers.remove(&device);
        self.departed.push(device);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::options::Options;

    #[test]
    fn devices_join_late_with_clocks_that_jump_and_get_everything() {
        let classes = [FaultClass::JoinLate, FaultClass::ClockJump, FaultClass::Crash];
        let mut late = 0;
        for seed in 1..5 {
            let options = Options { classes: BTreeSet::from(classes), ..Options::calm(4) };
            let mut world = World::new(seed, options).unwrap();
            late += (0..4).filter(|node| !world.is_member(*node)).count();
            world.run().unwrap();
            assert!((0..4).all(|node| world.is_member(node)));
        }
        assert!(late > 3, "{late}");
    }

    #[test]
    fn nobody_joins_through_a_device_that_cannot_be_dialled() {
        let options = Options { classes: BTreeSet::from([FaultClass::JoinLate]), ..Options::calm(4) };
        let mut world = World::new(2, options).unwrap();
        let node = (0..4).find(|node| !world.is_member(*node)).unwrap();
        (0..4).for_each(|inviter| world.network.place(inviter, 1_000, true));
        world.join_at_last(node);
        assert!(!world.is_member(node));
        world.network.place(0, 1_000, false);
        world.join_at_last(node);
        assert!(world.is_member(node));
    }

    /// A device that is still to join, and the ticket that it was given.
    fn with_ticket() -> (World, usize, Waiting, Ticket) {
        let options = Options { classes: BTreeSet::from([FaultClass::JoinLate]), ..Options::calm(4) };
        let mut world = World::new(2, options).unwrap();
        let node = (0..4).find(|node| !world.is_member(*node)).unwrap();
        let mut waiting = world.hosts[node].waiting.take().unwrap();
        world.get_ticket(node, &mut waiting);
        let ticket = waiting.ticket.take().unwrap();
        (world, node, waiting, ticket)
    }

    #[test]
    fn an_expired_ticket_is_refused_and_another_is_written() {
        let (mut world, node, waiting, ticket) = with_ticket();
        let inviter = world.numbers[&ticket.inviter()];
        world.hosts[inviter].clock.jump(2 * TICKET_MS as i64);
        let left = world.use_ticket(node, ticket, waiting).unwrap();
        assert!(left.ticket.is_none() && !world.is_member(node) || world.hosts[node].waiting.is_none());
        world.hosts[node].waiting = Some(left);
        world.run().unwrap();
        assert!(world.is_member(node));
    }

    #[test]
    fn a_device_that_is_refused_without_a_reason_is_found() {
        use holdfast_protocol::metadata::{Batch, Metadata as _, Table};
        let (mut world, node, waiting, ticket) = with_ticket();
        // The inviter forgets what it has written, which nothing in this world makes it do.
        let metadata = &mut world.nodes[world.numbers[&ticket.inviter()]].machine.metadata;
        let mut batch = Batch::new();
        for (invitation, _) in metadata.scan(Table::Invitation, &[], &[], 100).unwrap() {
            batch.remove(Table::Invitation, invitation);
        }
        metadata.commit(batch).unwrap();
        assert!(world.use_ticket(node, ticket, waiting).is_some());
        let found = world.run_until(world.now);
        let what = JoinRefused::WrongTicket.to_string();
        assert_eq!(found, Err(Violation::Joining { node, what }));
    }
}
