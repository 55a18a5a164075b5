// Where the provider keeps its things: in memory, for as long as the process lives.
const ALWAYS = Infinity;

export function memory() {
  const rows = new Map();
  const live = (key) => {
    const row = rows.get(key);
    return row && row.end > Date.now() ? row.value : undefined;
  };

  return class Adapter {
    constructor(model) {
      this.model = model;
    }

    key(id) {
      return `${this.model}:${id}`;
    }

    async upsert(id, value, seconds) {
      rows.set(this.key(id), { value, end: seconds ? Date.now() + seconds * 1000 : ALWAYS });
      if (value.uid) rows.set(`uid:${value.uid}`, { value: id, end: ALWAYS });
      if (value.grantId) {
        const members = live(`grant:${value.grantId}`) ?? [];
        rows.set(`grant:${value.grantId}`, { value: [...members, this.key(id)], end: ALWAYS });
      }
    }

    async find(id) {
      return live(this.key(id));
    }

    async findByUid(uid) {
      const id = live(`uid:${uid}`);
      return id && this.find(id);
    }

    async findByUserCode() {
      return undefined;
    }

    async consume(id) {
      const value = live(this.key(id));
      if (value) value.consumed = Math.floor(Date.now() / 1000);
    }

    async destroy(id) {
      rows.delete(this.key(id));
    }

    async revokeByGrantId(grant) {
      for (const key of live(`grant:${grant}`) ?? []) rows.delete(key);
      rows.delete(`grant:${grant}`);
    }
  };
}
