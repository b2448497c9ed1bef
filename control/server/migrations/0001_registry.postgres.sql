-- The database's own word on tenants: a transaction sees the rows of the tenant that it was begun for, '*' sees all.
-- Without the setting it sees none. FORCE: the owner too. A superuser passes everything, so `serve` refuses to be one.

DO $$
DECLARE held TEXT;
BEGIN
    FOREACH held IN ARRAY ARRAY['server', 'server_report', 'usage_day', 'command', 'erasure'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', held);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', held);
        EXECUTE format(
            'CREATE POLICY own_tenant ON %I USING (current_setting(''dormouse.tenant'', true) IN (''*'', tenant))',
            held
        );
    END LOOP;
    -- The game's layer, tenant '', is everybody's to read and the region's to write.
    FOREACH held IN ARRAY ARRAY['threshold', 'threshold_change'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', held);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', held);
        EXECUTE format(
            'CREATE POLICY own_tenant ON %I USING (current_setting(''dormouse.tenant'', true) IN (''*'', tenant))',
            held
        );
        EXECUTE format('CREATE POLICY games ON %I FOR SELECT USING (tenant = '''')', held);
    END LOOP;
    ALTER TABLE tenant ENABLE ROW LEVEL SECURITY;
    ALTER TABLE tenant FORCE ROW LEVEL SECURITY;
    CREATE POLICY own_tenant ON tenant USING (current_setting('dormouse.tenant', true) IN ('*', id));
    -- A change posts its event; only the region's own workers read them all.
    ALTER TABLE outbox ENABLE ROW LEVEL SECURITY;
    ALTER TABLE outbox FORCE ROW LEVEL SECURITY;
    CREATE POLICY own_tenant ON outbox USING (current_setting('dormouse.tenant', true) IN ('*', tenant));
END $$;
