#!/usr/bin/perl
# Parses an aggregate report with Mail::DMARC: report.pl DMARC_CONFIG MESSAGE
# Prints JSON.
use strict;
use warnings;
use JSON::PP;
use Mail::DMARC::Report::Receive;

$ENV{MAIL_DMARC_CONFIG_FILE} = shift;
my $report;
{
    no warnings qw(redefine once);
    # It would put it into a database.
    *Mail::DMARC::Report::save_aggregate = sub { $report = $_[0]->aggregate };
}
open my $said, '>&', \*STDOUT or die;
open STDOUT, '>', '/dev/null' or die;    # it prints Subject
Mail::DMARC::Report::Receive->new->from_file(shift);
my $metadata = $report->metadata;
my $policy   = $report->policy_published;
print $said JSON::PP->new->utf8->canonical->encode(
    {
        metadata => { map { $_ => $metadata->$_ } qw(org_name email begin end) },
        policy   => { map { $_ => $policy->$_ } qw(domain p sp adkim aspf pct) },
        records  => [ map { record($_) } @{ $report->record } ]
    }
);

sub record {
    my ($record) = @_;
    my ( $row, $names ) = ( $record->row, $record->identifiers );
    my ( $evaluated, $results ) = ( $row->policy_evaluated, $record->auth_results );
    return {
        source_ip => $row->source_ip, count => $row->count + 0,
        ( map { $_ => $evaluated->$_ } qw(disposition dkim spf) ),
        ( map { $_ => $names->$_ } qw(header_from envelope_from envelope_to) ),
        auth_dkim => [ map { [ @$_{qw(domain selector result)} ] } @{ $results->dkim } ],
        auth_spf  => [ map { [ @$_{qw(domain scope result)} ] } @{ $results->spf } ]
    };
}
