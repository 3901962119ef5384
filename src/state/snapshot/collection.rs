//! Dead objects in a snapshot.
use crate::state::apply::State;
use crate::state::collection::unpack_dead;

/// Takes those that are `dead` from the objects that State has.
pub(super) fn restore_dead(state: &mut State, dead: &[u8]) -> Option<()> {
    for (id, death) in unpack_dead(dead)? {
        state.dead_bytes += u64::from(state.objects.get(&id)?.bytes);
        if state.dead.insert(id, death).is_some() {
            return None;
        }
    }
    Some(())
}
