import time, json, os
from collections import deque
import pytest
from rollwave.settings import Settings
from tests.engine import *
from tests.engine import campaign_ref, make_claims, incoming_report
from rollwave.engine.ingest.commit import Ingest
from rollwave.engine.upkeep.look import Upkeep
from rollwave.engine.upkeep.targeting import Targeter
from tests.integration.test_budgets import Placed
from tests.integration.test_policy_waves import insert_campaign as ic
N=int(os.environ.get("N","100000")); S=int(os.environ.get("S","30000")); LAG=int(os.environ.get("LAG","20000"))
@pytest.fixture
async def host(database):
    async with connect(database) as c: yield c
async def make(pool, host, document):
    campaign = await ic(host, {"order":"hash","guardrails":[],**document}, {})
    await host.execute("UPDATE ota_campaigns SET status='PAUSED' WHERE id=$1", campaign)
    await host.execute("INSERT INTO ota_device_status (tenant_id,campaign_id,device_id) SELECT 'north',$1,'dev-'||n FROM generate_series(1,$2::int) n", campaign, N)
    await host.execute("UPDATE ota_campaigns SET status='RUNNING' WHERE id=$1", campaign)
    await host.execute("ANALYZE")
    p = Placed(pool, host, campaign, claim_batch=1000)
    t=time.monotonic(); await p.place(); print("placed", round(time.monotonic()-t,1))
    return p
async def drive(pool, p, label):
    claims = make_claims(pool, Settings(ROLLWAVE_CLAIM_BATCH=1000)); ing = Ingest(pool, Settings())
    q=deque(); tc=ti=0.0; n=0; nc=0; ended=0; empty=0
    t0=time.monotonic()
    while True:
        got=0
        if len(q) < LAG or not q:
            t=time.monotonic(); b=await claims.claim(campaign_ref(p.id)); tc+=time.monotonic()-t; nc+=1
            got=len(b.commands); n+=got; q.extend(c.device_id for c in b.commands)
            if not got: empty+=1
        if len(q)>=LAG or not got:
            if not q and not got and (n>=N or b.retry_in): break
            batch=[incoming_report(q.popleft(), p.id, "SUCCESS") for _ in range(min(500,len(q)))]
            if batch:
                t=time.monotonic(); await ing.take_in(batch); ti+=time.monotonic()-t; ended+=len(batch)
        yield_ = (n, tc, ti)
    print(label, dict(sent=n, claims=nc, empty=empty, claim_s=round(tc,2), per_s=round(n/tc), ingest_s=round(ti,2), ended=ended, total=round(time.monotonic()-t0,1)))
@pytest.mark.usefixtures("listener_subscribed")
async def test_perf(pool, host):
    await host.execute("INSERT INTO tenants (tenant_id) VALUES ('north') ON CONFLICT DO NOTHING")
    await host.execute("INSERT INTO devices (tenant_id,device_id,attributes) SELECT 'north','dev-'||n, jsonb_build_object('site','site-'||(hashint4(n)::bigint+2147483648)%$1::int) FROM generate_series(1,$2::int) n", S, N)
    order = os.environ.get("ORDER","plain,budget").split(",")
    for which in order:
        p = await make(pool, host, {"budgets":[{"per":"site","max_in_flight":1}]} if which=="budget" else {})
        await drive(pool, p, which)
        await host.execute("DELETE FROM ota_campaigns WHERE id=$1", p.id)
