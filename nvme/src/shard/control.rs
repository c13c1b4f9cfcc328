//! What the controller tells the shard.

use super::*;

impl Shard {
    /// Takes everything that is in the inbox; whether there was something.
    #[cold]
    pub(super) fn take_messages(&mut self, cx: &mut Cx) -> bool {
        let mut any = false;
        loop {
            match self.inbox.try_recv() {
                Ok(message) => self.take(cx, message),
                Err(TryRecvError::Empty) => return any,
                Err(TryRecvError::Disconnected) => {
                    // The controller is gone: drain and leave, with nobody to tell.
                    if !self.exiting {
                        self.exiting = true;
                        self.stop(cx);
                    }
                    return any;
                }
            }
            any = true;
        }
    }

    fn take(&mut self, cx: &mut Cx, message: ToShard) {
        match message {
            ToShard::CreateCq {
                qid,
                base,
                entries,
                vector,
            } => {
                let status = self.create_cq(qid, base, entries, vector).err();
                let status = status.unwrap_or(Status::SUCCESS);
                self.env.report.tell(FromShard::CqCreated { qid, status });
            }
            ToShard::CreateSq {
                qid,
                cqid,
                base,
                entries,
            } => {
                let status = self.create_sq(qid, cqid, base, entries).err();
                let status = status.unwrap_or(Status::SUCCESS);
                self.env.report.tell(FromShard::SqCreated { qid, status });
            }
            ToShard::DeleteSq { qid } => self.delete_sq(cx, qid),
            ToShard::DeleteCq { qid } => self.delete_cq(qid),
            ToShard::Map(map) => self.set_map(map),
            ToShard::Namespaces(set, ack) => self.set_namespaces(cx, &set, &ack),
            ToShard::Abort {
                sqid,
                cid,
                admin_cid,
            } => {
                let aborted = self.abort(cx, sqid, cid);
                let answer = FromShard::Aborted { admin_cid, aborted };
                self.env.report.tell(answer);
            }
            ToShard::Coalescing {
                threshold,
                time_100us,
            } => {
                let time = ticks_of(Duration::from_micros(100) * u32::from(time_100us));
                self.env.coalescing.set(u32::from(threshold), time);
                self.follow_coalescing();
            }
            ToShard::CoalescingDisable { vector, disabled } => {
                self.env.coalescing.exempt(vector, disabled);
                self.follow_coalescing();
            }
            ToShard::PageSize { mps } => self.env.page = PageSize::from_mps(mps),
            ToShard::Vector { qid, vector } => {
                let Self { env, groups, .. } = self;
                if let Some(group) = find_cq(groups, qid) {
                    group.interrupt().rebind(vector, &env.coalescing);
                }
            }
            ToShard::WriteCache { enabled } => self.env.write_through = !enabled,
            ToShard::ShadowDoorbells(place) => self.set_shadow(place),
            ToShard::InterruptMask(masked) => self.env.masked = masked,
            ToShard::PinUnmasked => self.raise_pin(cx),
            ToShard::Count => self.report_counters(cx.now()),
            ToShard::Describe(gather) => gather.add(|snapshot| {
                for group in self.groups.iter().flatten() {
                    group.describe(snapshot);
                }
                for (nsid, traffic) in self.env.disks.traffic() {
                    snapshot.count_namespace(nsid, traffic);
                }
            }),
            ToShard::Barrier(ack) => drop(ack),
            ToShard::Stop => self.stop(cx),
            ToShard::Exit => {
                self.exiting = true;
                self.stop(cx);
            }
        }
    }

    fn create_cq(
        &mut self,
        qid: u16,
        base: u64,
        entries: u32,
        vector: Option<VectorBinding>,
    ) -> Result<(), Status> {
        const REFUSED: Status = Status::INVALID_QUEUE_IDENTIFIER.with_dnr(true);
        if self.stops > 0 || find_cq(&mut self.groups, qid).is_some() {
            return Err(REFUSED);
        }
        let free = self.groups.iter().position(Option::is_none);
        let place = free.unwrap_or(self.groups.len());
        let index = u16::try_from(place).map_err(|_| REFUSED)?;
        let env = &self.env;
        let cq = CompletionQueue::new(&env.view, qid, base, entries)
            .map_err(|error| unreachable_queue(env, qid, error))?;
        env.doorbells.clear_head(qid);
        let interrupt = Interrupt::new(vector, &env.coalescing);
        if free.is_none() {
            self.groups.push(None);
        }
        self.groups[place] = Some(QueueGroup::new(index, cq, interrupt));
        Ok(())
    }

    fn create_sq(&mut self, qid: u16, cqid: u16, base: u64, entries: u32) -> Result<(), Status> {
        if self.stops > 0 || find_sq(&mut self.groups, qid).is_some() {
            return Err(Status::INVALID_QUEUE_IDENTIFIER.with_dnr(true));
        }
        let Self { env, groups, .. } = self;
        let group = find_cq(groups, cqid).filter(|group| !group.deleting);
        let group = group.ok_or(Status::COMPLETION_QUEUE_INVALID.with_dnr(true))?;
        let sq = SubmissionQueue::new(&env.view, qid, base, entries)
            .map_err(|error| unreachable_queue(env, qid, error))?;
        env.doorbells.clear_tail(qid);
        group.add(sq);
        self.armed = false;
        Ok(())
    }

    fn delete_sq(&mut self, cx: &Cx, qid: u16) {
        match find_sq(&mut self.groups, qid) {
            Some((group, at)) => {
                // Asked twice, it is answered twice.
                if group.is_deleting_sq(at) {
                    self.env.report.tell(FromShard::SqDeleted { qid });
                }
                group.delete_sq(cx, &mut self.env, at);
                self.deleting = true;
            }
            None => self.env.report.tell(FromShard::SqDeleted { qid }),
        }
    }

    fn delete_cq(&mut self, qid: u16) {
        match find_cq(&mut self.groups, qid) {
            Some(group) if !group.deleting => {
                group.deleting = true;
                self.deleting = true;
            }
            _ => self.env.report.tell(FromShard::CqDeleted { qid }),
        }
    }

    fn set_map(&mut self, map: Arc<DmaMap>) {
        let env = &mut self.env;
        env.view = MapView::new(map);
        env.doorbells.remap(&env.view);
        for group in self.groups.iter_mut().flatten() {
            group.remap(&env.view);
        }
        self.halted = false;
        self.check_memory();
    }

    fn set_namespaces(&mut self, cx: &mut Cx, set: &NamespaceSet, ack: &Ack) {
        self.env.disks.retire(set, ack);
        for group in self.groups.iter_mut().flatten() {
            group.purge(cx, &mut self.env);
        }
        self.env.disks.expedite(cx, true);
        self.env.disks.admit(set);
    }

    fn abort(&mut self, cx: &Cx, sqid: u16, cid: u16) -> bool {
        find_sq(&mut self.groups, sqid)
            .is_some_and(|(group, at)| group.abort(cx, &mut self.env, at, cid))
    }

    /// A pin is a level: while entries wait, the end of one interrupt is the start of the next.
    fn raise_pin(&mut self, cx: &Cx) {
        for group in self.groups.iter_mut().flatten() {
            group.look_at_head(&mut self.env);
            if group.cq().is_occupied() {
                group.interrupt().note(cx.now());
            }
        }
    }

    fn follow_coalescing(&mut self) {
        for group in self.groups.iter_mut().flatten() {
            group.interrupt().configure(&self.env.coalescing);
        }
    }

    fn set_shadow(&mut self, place: Option<ShadowDoorbells>) {
        let env = &mut self.env;
        for group in self.groups.iter_mut().flatten() {
            group.look(env);
        }
        env.doorbells.set_shadow(&env.view, place);
        self.armed = false;
        if env.doorbells.is_parked() {
            tracing::warn!(
                controller = %env.report.label,
                "the guest's shadow doorbells are not in mapped memory: its queues stand still"
            );
        }
        for group in self.groups.iter_mut().flatten() {
            group.adopt(env);
        }
    }

    fn stop(&mut self, cx: &mut Cx) {
        self.stops += 1;
        self.env.stopping = true;
        for group in self.groups.iter_mut().flatten() {
            group.stop(cx, &mut self.env);
        }
        self.env.disks.expedite(cx, false);
    }
}

fn find_cq(groups: &mut [Option<QueueGroup>], qid: u16) -> Option<&mut QueueGroup> {
    groups
        .iter_mut()
        .flatten()
        .find(|group| group.cq().qid() == qid)
}

fn find_sq(groups: &mut [Option<QueueGroup>], qid: u16) -> Option<(&mut QueueGroup, usize)> {
    groups.iter_mut().flatten().find_map(|group| {
        let at = group.find(qid)?;
        Some((group, at))
    })
}

/// Tells the operator why a queue was refused; answers the guest's status.
fn unreachable_queue(env: &Env, qid: u16, error: QueueError) -> Status {
    tracing::warn!(
        controller = %env.report.label, qid, %error,
        "the guest's queue cannot be made: is all of the guest's RAM shared?"
    );
    error.status()
}
