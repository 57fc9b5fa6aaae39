//! Clients: they open the volume anywhere, write and read, leave, and say what a read may give.

use super::*;

impl World {
    /// The client's connection is over: nobody says what came of what was under way.
    pub(super) fn leave(&mut self, client: usize) {
        let client = &mut self.clients[client];
        client.at = None;
        client.opening = None;
        client.under_way.clear();
        client.waits_until = self.now + 20 * MS;
    }

    pub(super) fn go_on(&mut self, index: usize) {
        if self.at_the_end {
            return;
        }
        let now = self.now;
        if let Some((node, life)) = self.clients[index].at {
            if self.random.chance(1, 2000) {
                self.leave(index);
                if self.lives(node, life) {
                    self.with_host(node, |host, now, outputs| {
                        host.detach(now, VOLUME, outputs);
                    });
                }
                return;
            }
            if self.clients[index].under_way.len() < 4 && self.random.chance(1, 4) {
                self.begin(index, node);
            }
            return;
        }
        if let Some((_, _, since)) = self.clients[index].opening {
            // Who waits for too long tries elsewhere. (Its opening may still be answered: then it goes away at once.)
            if now > since + 3000 * MS {
                self.clients[index].opening = None;
            }
            return;
        }
        if now < self.clients[index].waits_until {
            return;
        }
        let node = self.random.below(NODES as u64) as usize;
        self.requests += 1;
        let number = self.requests;
        self.clients[index].opening = Some((number, node, now));
        if self.nodes[node].host.is_some() {
            self.with_host(node, |host, now, outputs| {
                host.attach(now, VOLUME, number, outputs);
            });
        } else {
            self.leave(index);
        }
    }

    pub(super) fn begin(&mut self, index: usize, node: usize) {
        let block = self.random.below(BLOCKS);
        let is_busy = |client: &Client| {
            let mut all = client.under_way.values();
            all.any(|operation| operation.block == block)
        };
        if is_busy(&self.clients[index]) {
            return;
        }
        self.requests += 1;
        let number = self.requests;
        // Only the first client writes.
        let writes = index == 0 && self.random.chance(2, 3);
        let (request, value) = if writes {
            self.values += 1;
            let value = self.values;
            self.registers[block as usize].begins(value);
            let data = Bytes::from(value.to_le_bytes().repeat(BLOCK_BYTES as usize / 8));
            let offset = block * BLOCK_BYTES;
            (ClientRequest::Write { offset, data }, Some(value))
        } else {
            let (offset, length) = (block * BLOCK_BYTES, BLOCK_BYTES);
            (ClientRequest::Read { offset, length }, None)
        };
        let allowed = self.registers[block as usize].allowed();
        let operation = Operation {
            block,
            value,
            allowed,
        };
        self.clients[index].under_way.insert(number, operation);
        self.widen(block);
        self.with_host(node, |host, now, outputs| {
            host.submit(now, VOLUME, number, request, outputs);
        });
    }

    /// Reads under way may give what is allowed now, too.
    pub(super) fn widen(&mut self, block: u64) {
        let allowed = self.registers[block as usize].allowed();
        for client in &mut self.clients {
            for operation in client.under_way.values_mut() {
                if operation.block == block {
                    operation.allowed.extend(&allowed);
                }
            }
        }
    }

    pub(super) fn answered(&mut self, node: usize, number: u64, outcome: Outcome) {
        let life = self.nodes[node].life;
        for index in 0..self.clients.len() {
            if let Some((opening, _, _)) = self.clients[index].opening
                && opening == number
            {
                match outcome {
                    Outcome::Attached => {
                        self.clients[index].opening = None;
                        self.clients[index].at = Some((node, life));
                    }
                    _ => self.leave(index),
                }
                return;
            }
            if let Some(operation) = self.clients[index].under_way.remove(&number) {
                self.ended(&operation, outcome);
                return;
            }
        }
        if matches!(outcome, Outcome::Attached) {
            self.with_host(node, |host, now, outputs| {
                host.detach(now, VOLUME, outputs);
            });
        }
    }

    pub(super) fn ended(&mut self, operation: &Operation, outcome: Outcome) {
        let register = &mut self.registers[operation.block as usize];
        match (outcome, operation.value) {
            (Outcome::Done, Some(value)) => {
                register.acknowledged(value);
                self.counts.written += 1;
                self.widen(operation.block);
            }
            (Outcome::Data(parts), None) => {
                let data = parts.concat();
                let value = Value::from_le_bytes(data[..8].try_into().unwrap());
                self.assert(
                    data.chunks(8).all(|word| *word == value.to_le_bytes()),
                    || format!("block {} is torn", operation.block),
                );
                self.assert(operation.allowed.contains(&value), || {
                    format!(
                        "block {} reads {value}, of {:?}",
                        operation.block, operation.allowed
                    )
                });
                self.registers[operation.block as usize].seen(value);
                self.last_read = Some(value);
                self.counts.read += 1;
            }
            // Nothing is said about what came of it.
            _ => {}
        }
    }
}
