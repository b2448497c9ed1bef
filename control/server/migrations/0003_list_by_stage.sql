-- "Which servers are deep?" is a page out of this, however many servers there are.
CREATE INDEX server_report_by_stage ON server_report (stage, tenant, name);
