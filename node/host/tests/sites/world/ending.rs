//! The end: each replica serves once, and all hold the same.

use super::*;

impl World {
    /// Each replica serves once, and all give the same.
    pub(super) fn compare(&mut self) {
        for index in 0..self.clients.len() {
            if let Some((node, _)) = self.clients[index].at {
                self.leave(index);
                self.with_host(node, |host, now, outputs| {
                    host.detach(now, VOLUME, outputs);
                });
            }
            self.clients[index].opening = None;
        }
        self.at_the_end = true;
        // What was under way when its client left may still come to count: a read beside it gives what was there before.
        for _ in 0..2000 {
            self.step();
        }
        let mut first: Option<Vec<Value>> = None;
        for node in 0..NODES {
            let moved = Command::Relocate {
                volume: VOLUME,
                to: node_id(node),
            };
            self.commit(moved);
            let values = self.read_all(node);
            let same = first.as_ref().is_none_or(|first| *first == values);
            self.assert(same, || {
                let other = first.iter().flatten().zip(&values).enumerate();
                let other: Vec<_> = other.filter(|(_, (one, other))| one != other).collect();
                format!("n{} holds something else: {other:?}", node + 1)
            });
            first.get_or_insert(values);
            self.commit(Command::EndRelocation {
                volume: VOLUME,
                to: node_id(node),
            });
        }
    }

    pub(super) fn read_all(&mut self, node: usize) -> Vec<Value> {
        let limit = self.now + WELL;
        self.clients[0].opening = None;
        while self.clients[0].at.is_none() {
            self.assert(self.now < limit, || {
                format!("n{} does not come to serve", node + 1)
            });
            if self.clients[0].opening.is_none() {
                self.requests += 1;
                let number = self.requests;
                self.clients[0].opening = Some((number, node, self.now));
                self.with_host(node, |host, now, outputs| {
                    host.attach(now, VOLUME, number, outputs);
                });
            }
            self.step();
        }
        let life = self.nodes[node].life;
        let mut values = Vec::new();
        for block in 0..BLOCKS {
            self.requests += 1;
            let number = self.requests;
            let allowed = self.registers[block as usize].allowed();
            let operation = Operation {
                block,
                value: None,
                allowed,
            };
            self.last_read = None;
            self.clients[0].under_way.insert(number, operation);
            self.with_host(node, |host, now, outputs| {
                let (offset, length) = (block * BLOCK_BYTES, BLOCK_BYTES);
                let request = ClientRequest::Read { offset, length };
                host.submit(now, VOLUME, number, request, outputs);
            });
            while self.last_read.is_none() {
                self.assert(self.now < limit && self.lives(node, life), || {
                    "the last reads take too long".into()
                });
                self.step();
            }
            values.extend(self.last_read);
        }
        self.leave(0);
        self.with_host(node, |host, now, outputs| {
            host.detach(now, VOLUME, outputs);
        });
        values
    }
}
